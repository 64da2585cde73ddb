"""From an image to one usable face: detection, alignment, quality, embedding, and a classifier of attacks.

`open_pack(folder)` chooses the adapter by what the folder holds. No model comes with Hutong: an error says where to
get which, and under which licence.
"""

from facepay.extraction.interface import Extractor, FaceSeen, ModelsUnusable
from facepay.extraction.packs import open_pack

__all__ = ["Extractor", "FaceSeen", "ModelsUnusable", "open_pack"]
