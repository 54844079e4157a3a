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
    ├── IndexMismatch (RuntimeError)     an index of frames is not that of the files, or not what was asked for
    ├── JobError (RuntimeError)          a job cannot be begun, resumed or brought to its end
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


class JobError(GpuencError, RuntimeError):
    """A job over many files cannot be begun, resumed or brought to its end; `code` says why."""

    code = "job-failed"


class IndexMismatch(GpuencError, RuntimeError):
    """An index of frames cannot be used: for other files, other columns, or none at all; `code` says why."""

    code = "index-stale"


class DeviceUnavailable(GpuencError, RuntimeError):
    """A GPU was demanded and there is none that can be used."""

    code = "device-unavailable"


# Every code that a record, a failure or an exception can carry, and what it means. Part of the interface.
CODES: dict[str, str] = {
    "ambiguous-layout": "an array's shape can be read in more than one way",
    "already-encoded": "the source has the target's transfer syntax",
    "cluster-lost": "the cluster's scheduler is not there any more",
    "cluster-unavailable": "there is no such cluster, or no worker in it",
    "codec-error": "a codec refused its input or failed",
    "corrupt-deflate": "a Deflated file cannot be inflated",
    "corrupt-header": "the elements before or after Pixel Data cannot be read",
    "decode-failed": "a compressed source frame cannot be decoded",
    "destination-collision": "another source has the same place in the destination",
    "destination-exists": "something has the output's name already",
    "destination-is-source": "the output's place is that of a source",
    "destination-lost": "the job's destination was removed, moved or replaced",
    "destination-unwritable": "the output cannot be written",
    "device-error": "a call to the GPU's libraries failed",
    "device-failed": "the GPU returned nothing for a frame",
    "device-hung": "a call to the GPU did not return in time",
    "device-lost": "the GPU cannot be used any more in this process",
    "device-out-of-memory": "the GPU's memory does not suffice",
    "device-quality": "the GPU missed the quality asked for",
    "device-refused": "the GPU's codec does not take such frames",
    "device-unavailable": "a GPU was demanded and there is none",
    "dicomdir-rebuilt": "a DICOMDIR now says what its files have become",
    "dicomdir-stale": "a DICOMDIR still describes the files as they were",
    "disk-full": "there is no room left",
    "encode-failed": "no plug-in could encode a frame",
    "error": "none of the others",
    "extra-missing": "what was asked for needs an extra that is not installed",
    "float-pixel-data": "floating-point pixels cannot be compressed",
    "format-not-allowed": "the transfer syntax's table does not allow the format",
    "frames-missing": "fewer frames were written than announced",
    "index-differs": "the index of frames was built for other sources or columns",
    "index-stale": "a file changed, came or went since the index of frames was built",
    "index-unusable": "a file that should be an index of frames is none, or is damaged",
    "internal-error": "a defect of gpuenc",
    "invalid-option": "an option is wrong",
    "invalid-pixels": "attributes or samples contradict themselves",
    "invalid-record": "a line of a report is no record, or holds no checksums",
    "job-failed": "a job cannot be begun, resumed or ended",
    "journal-differs": "the job to resume was asked for something else",
    "journal-in-use": "another process is at work on the job",
    "journal-missing": "there is no job to resume",
    "journal-unfinished": "an unfinished job is there, and it is not resumed",
    "journal-unusable": "the journal cannot be read or written",
    "kernel-disagrees": "a kernel's result is not that of its twin",
    "kernel-refused": "a kernel cannot do such a frame",
    "lossy-source": "the source is lossy already and is kept",
    "manifest-wrong": "it is no manifest, or not complete",
    "name-too-long": "a name or a path is longer than the system allows",
    "no-independent-decoder": "no decoder of another code base reads such codestreams here",
    "no-modality": "a frame has no Rescale Slope and Intercept that can be used",
    "no-window": "a frame has no window that can be used",
    "no-pixel-data": "there is no image in it",
    "not-a-report": "a file that should be a report of gpuenc is none",
    "not-alike": "frames of different shapes or types cannot be put together",
    "not-dicom": "not a DICOM file",
    "not-monochrome": "a window or rescaling is asked for of an image in colour",
    "not-on-device": "no kernel does such a preparation",
    "not-storable": "a DICOMweb server stores instances, and this is none",
    "object-refused": "the DICOMweb server did not take the object",
    "other-device": "the samples lie on another GPU than the encoder's",
    "out-of-memory": "memory does not suffice for one frame",
    "plugin-error": "a plug-in raised, or broke its contract",
    "read-back-mismatch": "what lies in a written file is not what was meant",
    "source-changed": "the source changed while it was read",
    "store-denied": "the store or server refuses it: wrong credentials, or none, or not allowed",
    "store-failed": "the store or server has failed, or answered what cannot be read",
    "store-full": "the store or server has no room left",
    "store-missing": "there is no such bucket or service",
    "store-name": "a name that no object, or no path, can have",
    "store-unreachable": "the store or server cannot be reached",
    "stored-unverified": "the store or server has taken it, and it could not be read back",
    "syntax-refused": "the DICOMweb server does not take the transfer syntax",
    "too-large": "larger than a length field, a bound or the memory budget allows",
    "truncated": "the source ends too early",
    "undecodable": "a fresh codestream cannot be decoded",
    "unknown-syntax": "a transfer syntax that cannot be read or written",
    "unreadable-source": "the source cannot be read",
    "unreconciled": "outcomes do not add up to the files found",
    "unwritable-destination": "the output cannot be written",
    "values-outside-bits-stored": "samples do not fit Bits Stored",
    "verify-mismatch": "samples do not come back from a fresh codestream",
    "video": "a video, which is lossy and kept",
    "worker-crashed": "the file ended each process that worked on it",
    "worker-hung": "no process came to an end with the file",
    "worker-unfit": "a worker of the cluster has not what the job needs",
    "workers-failed": "worker processes cannot be started",
    "wrong-codestream": "a codestream's markers are not what was asked for",
    "wrong-length": "lengths, frames and offsets contradict each other",
}
