import numpy as np
from numpy.typing import NDArray

HAS_AVX2: bool

def along_rows(
    image: bytes | NDArray[np.uint8],
    width: int,
    first: NDArray[np.int32],
    weights: NDArray[np.int32],
    out: NDArray[np.uint8],
    /,
) -> None: ...

down_columns = along_rows
along_rows_avx2 = along_rows
down_columns_avx2 = along_rows
