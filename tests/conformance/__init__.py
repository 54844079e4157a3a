"""Every transfer syntax, decoded by decoders from other code bases than the encoder."""
