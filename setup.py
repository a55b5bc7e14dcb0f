"""What setup.cfg cannot say: which packages there are, and the compiled parts.

Those are optional, because clipsrv also works where no C compiler is: images are then resized by Pillow, equal but
slower, and what the CPU can do is read in /proc/cpuinfo alone.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext


class BuildBesideSource(build_ext):
    """Leaves what it compiles beside the source too: `python -m clipsrv` in a clone imports the clone's clipsrv,
    whatever is installed. What was compiled from another source, or before the compiler went, is taken away first."""

    def run(self) -> None:
        for extension in self.extensions:
            source = Path(extension.sources[0])
            for old in source.parent.glob(f"{source.stem}.*"):
                if old.suffix in {".so", ".pyd"}:
                    old.unlink()
        super().run()
        if not self.inplace:
            self.copy_extensions_to_source()


# Not ./build, whose files of an earlier build would be installed again, whether or not they still exist.
building = TemporaryDirectory(prefix="clipsrv-build-")

setup(
    options={"build": {"build_base": building.name}},
    packages=[*find_packages(include=["clipsrv", "clipsrv.*", "conversions", "conversions.*"]), "clipsrv.models.demo"],
    cmdclass={"build_ext": BuildBesideSource},
    ext_modules=[
        Extension(
            ".".join(source.with_suffix("").parts),
            [str(source)],
            extra_compile_args=["-O3"],
            # They call nothing of the C library, and auditwheel tells a wheel's by what they are linked with.
            extra_link_args=["-Wl,--no-as-needed"] if sys.platform == "linux" else [],
            py_limited_api=True,
            optional=True,
        )
        for source in map(Path, ("clipsrv/_cpu.c", "clipsrv/images/_resize.c"))
    ],
)
