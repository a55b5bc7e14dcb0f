"""Which npm packages the training data comes from, pinned, and how to bring them here.

Must know nothing of training. Every package's licence is written out in onnx_models/demo/LICENSES.md.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {
    "@iconify-json/circle-flags": "1.2.11",
    "@iconify-json/emojione": "1.2.3",
    "@iconify-json/flag": "1.2.12",
    "@iconify-json/flagpack": "1.2.8",
    "@iconify-json/fluent-emoji": "1.2.7",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@iconify-json/fxemoji": "1.2.2",
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/openmoji": "1.2.29",
    "@iconify-json/streamline-emojis": "1.2.4",
    "@iconify-json/twemoji": "1.2.5",
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "emoji-datasource-google": "16.0.0",
    "emojibase-data": "17.0.0",
    "emojilib": "4.0.3",
}


@dataclass(frozen=True)
class Vendor:
    """One set of drawings. `kind`: svg, flags (svg by country) or files. Sets of one family share designs."""

    name: str
    family: str
    package: str
    kind: str
    folder: str = ""


# Flags drawn as flags only help the emoji flags, which several vendors leave out.
VENDORS = (
    Vendor("noto", "noto", "@iconify-json/noto", "svg"),
    Vendor("noto-v1", "noto-v1", "@iconify-json/noto-v1", "svg"),
    Vendor("noto-64px", "noto", "emoji-datasource-google", "files", "img/google/64"),
    Vendor("twemoji", "twemoji", "@iconify-json/twemoji", "svg"),
    Vendor("fluent", "fluent", "@iconify-json/fluent-emoji", "svg"),
    Vendor("fluent-flat", "fluent", "@iconify-json/fluent-emoji-flat", "svg"),
    Vendor("fluent-3d", "fluent", "@lobehub/fluent-emoji-3d", "files", "assets"),
    Vendor("emojione", "emojione", "@iconify-json/emojione", "svg"),
    Vendor("fxemoji", "fxemoji", "@iconify-json/fxemoji", "svg"),
    Vendor("streamline", "streamline", "@iconify-json/streamline-emojis", "svg"),
    Vendor("flag", "flags", "@iconify-json/flag", "flags"),
    Vendor("circle-flags", "flags", "@iconify-json/circle-flags", "flags"),
    Vendor("flagpack", "flags", "@iconify-json/flagpack", "flags"),
    Vendor("openmoji", "openmoji", "@iconify-json/openmoji", "svg"),
)
#: Never trained on. The first was looked at while the training was first written, the second only measured.
HELD_OUT = ("openmoji", "fxemoji")


def fetch(cache: Path) -> Path:
    """Installs the pinned packages below `cache` with npm and returns their `node_modules` folder.

    Raises `subprocess.CalledProcessError` when npm fails. Does nothing when the pins are in place already.
    """
    manifest = cache / "package.json"
    wanted = json.dumps({"name": "demo-data", "private": True, "dependencies": PACKAGES}, indent=2)
    modules = cache / "node_modules"
    if not manifest.exists() or manifest.read_text() != wanted or not modules.exists():
        cache.mkdir(parents=True, exist_ok=True)
        manifest.write_text(wanted)
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run([*command, "--prefix", str(cache)], check=True)
    return modules
