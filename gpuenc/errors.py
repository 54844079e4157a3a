"""The exception tree.

::

    GpuencError                    .code: a stable word for reports and scripts
    ├── InvalidPixels (ValueError)       the samples or their description contradict themselves
    │   ├── FormatNotAllowed             no row of the transfer syntax's table allows this format
    │   └── ValuesOutsideBitsStored      samples do not fit Bits Stored
    ├── InvalidOption (ValueError, RuntimeError)  an option is unknown, out of range or at odds with another
    ├── UnknownSyntax (NotImplementedError)  a transfer syntax that cannot be read or written here
    ├── CodecError (RuntimeError)        a codec refused or failed
    │   ├── DecodeFailed                 a compressed source frame cannot be decoded
    │   ├── EncodeFailed                 no plug-in could encode a frame
    │   └── WrongCodestream              a codestream is not what was asked for
    ├── SourceError (ValueError)         a file or dataset cannot be read as images
    ├── DestinationError (OSError)       an output cannot be written
    └── DeviceUnavailable (RuntimeError) a GPU was demanded and there is none

Each class also derives from the built-in that pydicom raises in the same place, so code written for
pydicom's encoders catches it. `code` is part of the interface; messages are not. No message holds patient data.
"""


class GpuencError(Exception):
    """The root of everything gpuenc raises on purpose."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class InvalidPixels(GpuencError, ValueError):
    """The samples, or the attributes that describe them, contradict themselves."""

    code = "invalid-pixels"


class FormatNotAllowed(InvalidPixels):
    """No row of the transfer syntax's table in PS3.5 section 8.2 allows this format."""

    code = "format-not-allowed"


class ValuesOutsideBitsStored(InvalidPixels):
    """Samples do not fit (0028,0101) Bits Stored and would have to be cut."""

    code = "values-outside-bits-stored"


class InvalidOption(GpuencError, ValueError, RuntimeError):
    """An option is unknown, out of range or at odds with another.

    Also a `RuntimeError`, since in pydicom it is the plug-in that objects, and `Encoder.encode` raises what it said.
    """

    code = "invalid-option"


class UnknownSyntax(GpuencError, NotImplementedError):
    """A transfer syntax that cannot be read or written here."""

    code = "unknown-syntax"


class CodecError(GpuencError, RuntimeError):
    """A codec refused its input or failed."""

    code = "codec-error"


class DecodeFailed(CodecError):
    """A compressed source frame cannot be decoded."""

    code = "decode-failed"


class EncodeFailed(CodecError):
    """No plug-in could encode a frame."""

    code = "encode-failed"


class WrongCodestream(CodecError):
    """A codestream's own markers are not what was asked for."""

    code = "wrong-codestream"


class SourceError(GpuencError, ValueError):
    """A file or dataset cannot be read as images; `code` says why."""

    code = "unreadable-source"


class DestinationError(GpuencError, OSError):
    """An output cannot be written; `code` says why."""

    code = "unwritable-destination"


class DeviceUnavailable(GpuencError, RuntimeError):
    """A GPU was demanded and there is none that can be used."""

    code = "device-unavailable"
