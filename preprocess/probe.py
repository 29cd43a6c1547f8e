"""What this environment makes of the built-in pictures: a digest that changes when pixels would.

The pictures are small JPEG files, so that decoder, transforms and processor are all on the test bench. A probe is
part of a rendering's identity: caches of environments that render alike go together, others never mix.
"""

from cache_store.canonical import digest_of
from preprocess.engines import renderer_of
from preprocess.errors import SourceError
from preprocess.pictures import PICTURES
from preprocess.rendering import Rendering

_VARIANTS = 8


def probe(rendering: Rendering, decoder: str) -> str:
    """Hex digest of the built-in pictures, rendered in 8 variants each, before normalisation."""
    renderer = renderer_of(rendering, decoder)
    parts: list[bytes] = []
    for data in PICTURES:
        digest = digest_of(data)
        try:
            image = renderer.decode(data).image
            parts += [renderer.pixels(image, digest, k).tobytes() for k in range(_VARIANTS)]
        except SourceError as error:
            parts.append(error.reason.encode())  # too small for a crop, say: that, too, is what happens here
    return digest_of(b"".join(parts)).hex()
