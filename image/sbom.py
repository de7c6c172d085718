"""What is in the image, as CycloneDX 1.5 JSON: each Debian package, each wheel, our program.  Pure: values in, text out."""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from typing import Any
from urllib.parse import quote

from image.debs import Deb
from image.dpkg import Installed

# Names that Debian's copyright files and SPDX's list share, or that differ by spelling alone.  Any other name is said as it stands.
SPDX = {"GPL-2+": "GPL-2.0-or-later", "GPL-2": "GPL-2.0-only", "GPL-2.0+": "GPL-2.0-or-later", "GPL-3+": "GPL-3.0-or-later",
        "GPL-3": "GPL-3.0-only", "LGPL-2+": "LGPL-2.0-or-later", "LGPL-2.1+": "LGPL-2.1-or-later", "LGPL-2.1": "LGPL-2.1-only",
        "LGPL-3+": "LGPL-3.0-or-later", "BSD-2-clause": "BSD-2-Clause", "BSD-3-clause": "BSD-3-Clause", "Apache-2.0": "Apache-2.0",
        "ISC": "ISC", "Zlib": "Zlib", "MPL-2.0": "MPL-2.0", "CC0-1.0": "CC0-1.0", "Expat": "MIT", "MIT": "MIT"}


def licensed(names: list[str]) -> list[dict[str, Any]]:
    return [{"license": {"id": SPDX[name]} if name in SPDX else {"name": name}} for name in names]


def of_debian(package: Installed, locked: Deb | None, licences: list[str]) -> dict[str, Any]:
    purl = f"pkg:deb/debian/{quote(package.name, safe='')}@{quote(package.version, safe='')}?arch={package.arch}&distro=debian-12"
    said: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": package.name, "version": package.version, "purl": purl,
                            "properties": [{"name": "debian:source", "value": package.source}]}
    if locked is not None and locked.version == package.version:     # another version's sum proves nothing of this one
        said["hashes"] = [{"alg": "SHA-256", "content": locked.sha256}]
    if licences:
        said["licenses"] = licensed(licences)
    if package.homepage:
        said["externalReferences"] = [{"type": "website", "url": package.homepage}]
    return said


def of_wheel(file_name: str, sha256: str, metadata: str) -> dict[str, Any]:
    """A wheel by its METADATA file."""
    head = metadata.split("\n\n")[0]
    said = dict(re.findall(r"^(Name|Version|License|License-Expression): *(\S.*)$", head, re.M))
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', said['Name']).lower()}@{said['Version']}"
    found: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": said["Name"], "version": said["Version"], "purl": purl,
                             "hashes": [{"alg": "SHA-256", "content": sha256}],
                             "properties": [{"name": "pypi:file", "value": file_name}]}
    classified = re.findall(r"^Classifier: License :: (?:OSI Approved :: )?(.+)$", head, re.M)
    if "License-Expression" in said:
        found["licenses"] = [{"expression": said["License-Expression"]}]
    elif names := classified or [said["License"]] * ("License" in said):
        found["licenses"] = licensed(names)
    return found


def document(version: str, epoch: int, components: list[dict[str, Any]]) -> str:
    """The whole, sorted; its serial number is a function of what it says."""
    components = sorted(components, key=lambda one: one["bom-ref"])
    digest = hashlib.sha256(json.dumps(components, sort_keys=True).encode()).digest()
    return json.dumps({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}",
        "metadata": {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
                     "component": {"type": "operating-system", "bom-ref": f"tillbox-image@{version}", "name": "tillbox-image",
                                   "version": version},
                     "tools": {"components": [{"type": "application", "name": "tillbox image", "version": version}]}},
        "components": components,
        "dependencies": [{"ref": f"tillbox-image@{version}", "dependsOn": [one["bom-ref"] for one in components]}],
    }, indent=1, ensure_ascii=False) + "\n"
