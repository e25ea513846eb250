"""Parquet files, by pyarrow, an optional package."""

from typing import Any

from v3s.options import import_extra


def import_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet, an optional package."""
    return import_extra("pyarrow", "parquet", "a parquet file"), import_extra("pyarrow.parquet", "parquet", "it")
