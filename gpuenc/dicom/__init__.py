"""DICOM in and out: frames from files and datasets, attributes, and the file writer."""
