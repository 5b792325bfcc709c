"""The one hierarchy of errors: bad input, unusable bundle, unusable engine, or a fault of ours.

Every error carries a `code` (a documented `Reason`) and one sentence a technician understands.
What a library raised is chained as `__cause__` and never escapes raw.
"""

from __future__ import annotations

from enum import Enum


class Reason(str, Enum):
    """Machine-readable reason codes, one for each way a request can end without a result."""

    # The file or its bytes
    UNREADABLE_FILE = "unreadable_file"
    """The file does not exist or cannot be opened."""
    NOT_DICOM = "not_dicom"
    """The bytes are not a DICOM object, or are cut short or corrupt before the pixels."""
    NOT_AN_IMAGE = "not_an_image"
    """The file is not a PNG, JPEG or TIFF that can be decoded, or an array is not an image."""
    TOO_LARGE = "too_large"
    """The file or the image it declares is beyond the size limits; nothing was allocated."""
    TOO_SMALL = "too_small"
    """The image is too small to read."""
    CORRUPT_PIXELS = "corrupt_pixels"
    """The pixel data cannot be decoded, or does not fit what the header declares."""
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    """The compression of the pixel data is none that radiography uses."""
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    """Colour images, floating-point pixels or other layouts no radiograph has."""
    EMPTY_IMAGE = "empty_image"
    """Every pixel has the same value, or all of them are padding."""
    # What kind of object it is
    WRONG_MODALITY = "wrong_modality"
    """Neither CR, DX nor RG; other modalities only when asked for."""
    NOT_FOR_PRESENTATION = "not_for_presentation"
    """The image is FOR PROCESSING: raw detector values, not a radiograph to read."""
    MULTI_FRAME = "multi_frame"
    """The object holds more than one frame."""
    # Which image it is
    NOT_A_HIP = "not_a_hip"
    """The header names another body part, or nothing in header or pixels says it is a hip."""
    WRONG_VIEW = "wrong_view"
    """The header's view contradicts the place in which the radiograph was given."""
    UNKNOWN_VIEW = "unknown_view"
    """Nothing says which view this is."""
    CONFLICTING_VIEW = "conflicting_view"
    """Parts of the header contradict each other about the view."""
    CONFLICTING_LATERALITY = "conflicting_laterality"
    """Parts of the header contradict each other about the side."""
    UNKNOWN_LATERALITY = "unknown_laterality"
    """Nothing says which side this is, or both sides have implants and none was named."""
    # Which pair it is
    MISSING_VIEW = "missing_view"
    """A study needs one AP and one lateral; one of them is missing."""
    AMBIGUOUS_PAIR = "ambiguous_pair"
    """More than one pair is possible and nothing decides between them."""
    DIFFERENT_PATIENTS = "different_patients"
    """The two radiographs are of two patients."""
    DIFFERENT_STUDIES = "different_studies"
    """The two radiographs are of two studies."""
    DIFFERENT_SIDES = "different_sides"
    """The two radiographs are of two sides."""
    SAME_IMAGE_TWICE = "same_image_twice"
    """AP and lateral are one and the same image."""
    MISSING_IDENTIFIER = "missing_identifier"
    """A radiograph lacks a UID that every DICOM object has; no result can be filed beside it."""
    # Bundle, engine, package
    BUNDLE_NOT_FOUND = "bundle_not_found"
    """No bundle is where one was named."""
    BUNDLE_INVALID = "bundle_invalid"
    """The manifest is unreadable, of another schema, or incomplete."""
    BUNDLE_DIGEST_MISMATCH = "bundle_digest_mismatch"
    """A file's sha256 is not the one in the manifest."""
    OVERLAY_INVALID = "overlay_invalid"
    """A site's overlay is missing, unreadable, of another schema, or incomplete."""
    OVERLAY_DIGEST_MISMATCH = "overlay_digest_mismatch"
    """An overlay's content is not the one that its digest names: damaged or changed."""
    OVERLAY_MISMATCH = "overlay_mismatch"
    """An overlay was fitted for another bundle or variant than the one that answers."""
    OVERLAY_UNTRUSTED = "overlay_untrusted"
    """An overlay is not signed, or not by the owner of the given key."""
    CALIBRATION_REFUSED = "calibration_refused"
    """A cohort cannot carry a calibration: too few patients, or answers and causes do not fit."""
    FITTED_ON = "fitted_on"
    """The overlay in use was fitted on this study, so it can say nothing of how well it works."""
    SELFTEST_FAILED = "selftest_failed"
    """Known studies no longer give their stored answers."""
    ENGINE_UNAVAILABLE = "engine_unavailable"
    """The named backend or precision cannot run on this machine."""
    ENGINE_FAILED = "engine_failed"
    """The engine refused to load or to run."""
    NON_FINITE_OUTPUT = "non_finite_output"
    """The engine gave NaN or infinity; no probability is reported."""
    MISSING_EXTRA = "missing_extra"
    """An optional part of the package is not installed."""
    WORKER_DIED = "worker_died"
    """The process that read this study died, several times over."""
    CLOSED = "closed"
    """The predictor was closed."""
    BAD_ARGUMENT = "bad_argument"
    """A call used a value that the documentation does not allow."""
    INTERNAL = "internal"
    """A fault of this package; please report it."""
    # GPU and built plans
    DRIVER_MISSING = "driver_missing"
    """This machine has no NVIDIA driver, or no GPU that it can use."""
    DRIVER_TOO_OLD = "driver_too_old"
    """The NVIDIA driver is older than what the engine needs."""
    GPU_OUT_OF_MEMORY = "gpu_out_of_memory"
    """The GPU has too little free memory for the engine."""
    GPU_LOST = "gpu_lost"
    """The GPU failed or was taken away; the process must be started again."""
    PLAN_MISSING = "plan_missing"
    """No plan was built for this network on this device, and none may be built now."""
    PLAN_CORRUPT = "plan_corrupt"
    """A built plan is not the one its cache lists: damaged, cut short or exchanged."""
    PLAN_FOREIGN = "plan_foreign"
    """A built plan belongs to another network, precision or device."""
    PLAN_STALE = "plan_stale"
    """A built plan is of another TensorRT version, or was built with other options."""
    PLAN_UNTRUSTED = "plan_untrusted"
    """Another user could change the folder of built plans, or a file in it."""
    WRONG_PRECISION = "wrong_precision"
    """A plan was built, but not all of it in the precision that was asked for."""


class HipNetError(Exception):
    """Base of all errors of this package.

    Attributes:
        code: the reason code.
        message: one sentence for a person; holds no patient data.
    """

    default_code = Reason.INTERNAL

    def __init__(self, message: str, code: Reason | None = None) -> None:
        self.code = code if code is not None else self.default_code
        self.message = message
        super().__init__(message)

    def to_dict(self) -> dict[str, str]:
        """The error as the JSON object that the command line prints."""
        return {"code": self.code.value, "message": self.message}


class InputRefused(HipNetError):
    """The radiographs cannot be read safely; the code says why. Another input may work."""

    def __init__(self, code: Reason, message: str) -> None:
        super().__init__(message, code)


class UsageError(HipNetError):
    """The call is wrong, whatever the radiographs are."""

    default_code = Reason.BAD_ARGUMENT


class BundleUnusable(HipNetError):
    """The model bundle is missing, damaged or of another schema."""

    default_code = Reason.BUNDLE_INVALID


class OverlayUnusable(BundleUnusable):
    """A site's overlay is missing, damaged, not trusted, or belongs to another bundle."""

    default_code = Reason.OVERLAY_INVALID


class EngineUnusable(HipNetError):
    """No engine can run the bundle here, or the one that ran failed."""

    default_code = Reason.ENGINE_FAILED


class MissingExtra(EngineUnusable):
    """An optional dependency is not installed; the message names the extra that brings it."""

    default_code = Reason.MISSING_EXTRA

    def __init__(self, extra: str, needed_for: str) -> None:
        self.extra = extra
        super().__init__(
            f"{needed_for} needs an optional part of hipnet-edge: "
            f'install it with pip install "hipnet-edge[{extra}]".'
        )


class Fault(HipNetError):
    """A fault of this package; what happened is chained as the cause."""
