"""What an MP4 says of itself: that it was generated, by what, and how it can be generated again. Never a prompt.

The same request gives the same text: no time, no machine, nothing of the caller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import consisid_runtime
from consisid_runtime.plan import Plan

MODEL = "ConsisID"
RUNTIME = "consisid-runtime"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for what a trained model generated; in XMP and in content credentials."""
SENTENCE = "AI-generated video"

_PRIVATE = ("negative_prompt",)
"""Options in a caller's own words."""
_XMP = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmp:CreatorTool={tool}
 Iptc4xmpExt:DigitalSourceType={source}
 Iptc4xmpExt:AISystemUsed={model}
 Iptc4xmpExt:AISystemVersionUsed={version}/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


@dataclass(frozen=True, slots=True)
class Marks:
    """What goes into a file.

    Attributes:
        tags: the container's metadata by ffmpeg's names: a sentence, the facts as JSON, the program.
        xmp: an XMP packet with IPTC's digital source type.
    """

    tags: Mapping[str, str]
    xmp: str


def marks(plan: Plan, fingerprint: str, watermark: Mapping[str, str] | None = None) -> Marks:
    """Those of one request.

    Args:
        fingerprint: of the bundle; empty where there is none.
        watermark: name and version of the one in its pixels.
    """
    tool = f"{RUNTIME} {consisid_runtime.__version__}"
    facts = {
        "ai_generated": True,
        "model": MODEL,
        "runtime": tool,
        "bundle": fingerprint,
        "options": {name: value for name, value in plan.resolved().items() if name not in _PRIVATE},
        **({"watermark": dict(watermark)} if watermark else {}),
    }
    fields = {"tool": tool, "source": SOURCE_TYPE, "model": MODEL, "version": fingerprint}
    return Marks(
        tags={
            "comment": f"{SENTENCE} ({MODEL}, {tool})",
            "description": json.dumps(facts, sort_keys=True),
            "encoding_tool": tool,
        },
        xmp=_XMP.format(**{name: quoteattr(text) for name, text in fields.items()}),
    )


def facts_of(tags: Mapping[str, str]) -> dict[str, Any] | None:
    """The JSON of `marks` in a file's tags; None for a file that has none."""
    try:
        found = json.loads(tags.get("description", ""))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("ai_generated") is True else None
