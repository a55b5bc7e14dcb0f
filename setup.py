"""The one part that setup.cfg cannot say: the compiled resize.

Optional, because clipsrv also works where no C compiler is: images are then resized by Pillow, equal but slower.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "clipsrv.images._resize",
            ["clipsrv/images/_resize.c"],
            extra_compile_args=["-O3"],
            py_limited_api=True,
            optional=True,
        )
    ]
)
