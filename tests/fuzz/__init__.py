"""Damaged DICOM files by the thousand, through the whole path of ``gpuenc transcode``; see `tests.fuzz.campaign`."""
