"""CPU codecs and the executable specification of the sample kernels."""
