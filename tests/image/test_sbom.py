"""The bill of materials: the fields that CycloneDX asks for, and the same words every time."""

from __future__ import annotations

import json
import re

from image import dpkg, sbom
from image.debs import Deb

STATUS = """\
Package: kmod
Status: install ok installed
Architecture: arm64
Version: 30+20221128-1
Homepage: https://git.kernel.org/kmod

Package: gone
Status: deinstall ok config-files
Architecture: arm64
Version: 1

Package: libkmod2
Status: install ok installed
Architecture: arm64
Source: kmod
Version: 30+20221128-1
"""
COPYRIGHT = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n" \
            "Files: *\nLicense: LGPL-2.1+ and GPL-2+\n\nLicense: Expat\n"
METADATA = "Metadata-Version: 2.1\nName: pyserial\nVersion: 3.5\nLicense: BSD\n" \
           "Classifier: License :: OSI Approved :: BSD License\n\nText\nVersion: 9\n"


def bill() -> dict:
    packages = dpkg.installed(STATUS)
    locked = Deb("kmod", "arm64", "30+20221128-1", "ab" * 32)
    return json.loads(sbom.document("0.1.0", 1_700_000_000, [
        *(sbom.of_debian(one, locked if one.name == "kmod" else None, dpkg.licences(COPYRIGHT)) for one in packages),
        sbom.of_wheel("pyserial-3.5-py2.py3-none-any.whl", "cd" * 32, METADATA)]))


def test_what_is_installed_is_in_it_and_nothing_else() -> None:
    assert [one["name"] for one in bill()["components"]] == ["kmod", "libkmod2", "pyserial"]


def test_it_is_cyclonedx() -> None:
    said = bill()
    assert (said["bomFormat"], said["specVersion"], said["version"]) == ("CycloneDX", "1.5", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", said["serialNumber"])
    assert said["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    for one in said["components"]:
        assert one["type"] in ("library", "application") and one["name"] and one["version"]
        assert re.match(r"pkg:(deb/debian|pypi|generic)/", one["purl"])
        for number in one.get("hashes", []):
            assert number["alg"] == "SHA-256" and re.fullmatch(r"[0-9a-f]{64}", number["content"])
        for licence in one.get("licenses", []):
            assert licence.keys() == {"license"} or licence.keys() == {"expression"}
    refs = [one["bom-ref"] for one in said["components"]]
    assert len(set(refs)) == len(refs) and said["dependencies"][0]["dependsOn"] == refs


def test_a_package_has_its_source_its_sum_and_its_licences() -> None:
    kmod, library, serial = bill()["components"]
    assert kmod["purl"] == "pkg:deb/debian/kmod@30%2B20221128-1?arch=arm64&distro=debian-12"
    assert kmod["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}] and "hashes" not in library
    assert library["properties"] == [{"name": "debian:source", "value": "kmod"}]
    assert [one["license"].get("id") for one in kmod["licenses"]] == ["MIT", "GPL-2.0-or-later", "LGPL-2.1-or-later"]
    assert serial["licenses"] == [{"license": {"name": "BSD License"}}] and serial["version"] == "3.5"


def test_a_copyright_in_free_words_names_no_licence() -> None:
    assert dpkg.licences("This package was debianized by somebody.\nLicense: GPL\n") == []


def test_the_same_parts_give_the_same_words() -> None:
    assert bill() == bill()
