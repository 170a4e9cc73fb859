"""The XMP packet that says "made by an AI", and may carry the settings.

DigitalSourceType is IPTC's; its value is a name in their vocabulary, never fetched.
"""

from typing import Final
from xml.sax.saxutils import escape

__all__ = ["SOURCE_TYPE", "xmp_packet"]

SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_OURS: Final = "urn:safelight:1"  # a name: no address stands behind it

_NO_XML: Final = {0xFFFE: None, 0xFFFF: None}  # no characters of XML; JSON escapes the others


def xmp_packet(settings: str = "") -> bytes:
    """Give the packet, UTF-8. settings: JSON to go along in `safelight:settings`, '' for none."""
    more = ""
    if settings:
        text = escape(settings.translate(_NO_XML))
        more = f'<safelight:settings xmlns:safelight="{_OURS}">{text}</safelight:settings>'
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{_IPTC}">'
        f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>{more}"
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()
