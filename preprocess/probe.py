"""What this environment makes of the built-in pictures: a digest that changes when pixels would.

The pictures are small JPEG files, so that decoder, transforms and processor are all on the test bench. A probe is
part of a rendering's identity: caches of environments that render alike go together, others never mix.
"""

import sys

from cache_store.canonical import digest_of
from preprocess.engines import renderer_of
from preprocess.errors import SourceError, UsageError
from preprocess.pictures import PICTURES
from preprocess.render import opencv_as_in_a_worker
from preprocess.rendering import Rendering

_VARIANTS = 8


@opencv_as_in_a_worker()
def probe(rendering: Rendering, decoder: str) -> str:
    """Hex digest of the built-in pictures, rendered in 8 variants each, before normalisation.

    Raises
    ------
    UsageError : OpenCV may not decode them in this process
    """
    renderer = renderer_of(rendering, decoder, sys.maxsize)  # the cap is not part of what fixes pixels
    parts: list[bytes] = []
    for data in PICTURES:
        digest = digest_of(data)
        try:
            image = renderer.decode(data).image
            parts += [renderer.pixels(image, digest, k).tobytes() for k in range(_VARIANTS)]
        except SourceError as error:
            if "OPENCV_IO_MAX_IMAGE" in error.reason:
                raise UsageError(
                    "a variable OPENCV_IO_MAX_IMAGE_… in the environment keeps OpenCV from decoding small pictures in "
                    "this process; unset it, decode.max_megapixels is the cap"
                ) from error
            parts.append(error.reason.encode())  # too small for a crop, say: that, too, is what happens here
    return digest_of(b"".join(parts)).hex()
