"""Spark writes a corpus, `ner-batch extract` reads it, Spark reads what comes out: every column the same. Run by hand.

Spark is in no lock, so it has an environment of its own, and a Java 17:

    python3 -m venv spark && spark/bin/pip install 'pyspark==4.0.*'     # or 3.5.*
    spark/bin/python tests/benchmarks/spark_round_trip.py FOLDER --ner-batch .venv/bin/ner-batch

FOLDER is made. The exit code is 1 where a type or a value has changed. The model is the one that ships with the package.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

FILES = Path(__file__).resolve().parents[2] / "ner_batch" / "demo" / "files"
COLUMNS = {
    "text": "string",
    "byte": "tinyint",
    "short": "smallint",
    "int": "int",
    "float": "float",
    "double": "double",
    "flag": "boolean",
    "bytes": "binary",
    "day": "date",
    "until": "timestamp",
    "local": "timestamp_ntz",
    "small": "decimal(5,2)",
    "price": "decimal(12,3)",
    "huge": "decimal(38,18)",
    "counts": "map<string,int>",
    "groups": "map<string,array<struct<at:timestamp,n:decimal(9,1)>>>",
    "matrix": "array<array<string>>",
    "nested": "struct<at:array<timestamp>,inner:struct<name:string,day:date,local:timestamp_ntz>>",
    "lang": "string",
    "nr": "int",
}
ROWS = [
    {
        "text": "'Anna met Bob in Oslo.'",
        "byte": "-128",
        "short": "32767",
        "int": "-2147483648",
        "float": "float('NaN')",
        "double": "1e308",
        "flag": "true",
        "bytes": "X'00FF'",
        "day": "date'9999-12-31'",
        "until": "timestamp'9999-12-31 23:59:59.999999'",
        "local": "timestamp_ntz'1700-05-01 01:02:03.456789'",
        "small": "-999.99",
        "price": "1.250",
        "huge": "12345678901234567890.123456789012345678",
        "counts": "map('a', 1, 'b', null)",
        "groups": "map('x', array(named_struct('at', timestamp'2300-01-01 00:00:00', 'n', 0.5)))",
        "matrix": "array(array('a', null), array(), null)",
        "nested": "named_struct('at', array(timestamp'1900-01-01 00:00:00.000001', null), "
        "'inner', named_struct('name', '', 'day', date'1970-01-01', 'local', timestamp_ntz'2024-02-29 12:00:00.000001'))",
        "lang": "'en'",
        "nr": "7",
    },
    {"lang": "'d e:/=é%'", "nr": "7"},  # nothing but nulls, in a folder whose name is escaped
    {
        "text": "'Zürich 🙂 and 北京'",
        "float": "float('-Infinity')",
        "double": "double('-0.0')",
        "flag": "false",
        "bytes": "X''",
        "day": "date'0001-02-28'",
        "until": "timestamp'1600-05-01 01:02:03.456789'",
        "counts": "map()",
        "matrix": "array()",
        "nested": "named_struct('at', null, 'inner', null)",
        "lang": "null",
        "nr": "-1",
    },
]
OUTPUTS = ["entities", "ungrounded", "status", "error", "prompt_tokens", "completion_tokens"]
# How Spark may write: options of the session, of the writer, and its partitions.
LAYOUTS = {
    "default": ({}, {}, []),
    "partitioned": ({}, {"compression": "zstd"}, ["lang", "nr"]),
    "micros": ({"spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS"}, {"compression": "gzip"}, []),
    "millis": ({"spark.sql.parquet.outputTimestampType": "TIMESTAMP_MILLIS"}, {"compression": "none"}, ["nr"]),
    "legacy": ({"spark.sql.parquet.writeLegacyFormat": "true"}, {"compression": "lz4"}, []),
}


def corpus(spark: SparkSession) -> DataFrame:
    """The rows, of the columns' types."""
    selects = []
    for number, row in enumerate(ROWS):
        values = (f"cast({row.get(name, 'null')} as {kind}) as `{name}`" for name, kind in COLUMNS.items())
        selects.append(f"select {number} as id, {', '.join(values)}")
    return spark.sql(" union all ".join(selects))


def extract(program: str, source: Path, output: Path) -> None:
    """Run the job on the shipped model."""
    config = {
        "input": {"path": str(source)},
        "output": {"path": str(output)},
        "engine": {
            "model": str(FILES / "base"),
            "dtype": "float32",
            "max_model_len": 1024,
            "cpu_kv_cache_gib": 1,
            "enforce_eager": True,
        },
        "adapter": str(FILES / "adapter"),
        "windows": {"max_tokens": 128},
    }
    file = output.with_suffix(".yaml")
    file.write_text(json.dumps(config))  # JSON is YAML
    subprocess.run([program, "extract", str(file)], check=True)


def differences(before: DataFrame, after: DataFrame, partitions: list[str]) -> list[str]:
    """What is not the same, a line each. Partitions come out as strings."""
    found = []
    for field in before.schema.fields:
        name, there = field.name, {f.name: f for f in after.schema.fields}
        if name not in there:
            found.append(f"{name} is gone")
            continue
        kind = "string" if name in partitions else field.dataType.simpleString()
        if there[name].dataType.simpleString() != kind:
            found.append(f"{name} was {field.dataType.simpleString()}, is {there[name].dataType.simpleString()}")
        shown = "hex(`{}`)" if kind == "binary" else "cast(`{}` as string)"
        one, other = (
            {row.id: row.value for row in frame.selectExpr("id", f"{shown.format(name)} as value").collect()}
            for frame in (before, after)
        )
        found += [f"{name} of row {i}: {one[i]!r} became {other.get(i)!r}" for i in one if one[i] != other.get(i)]
    missing = [name for name in OUTPUTS if name not in after.columns]
    return found + [f"no column {name}" for name in missing]


def main() -> int:
    """Write, extract, compare, in each layout; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ner-batch", default="ner-batch", help="the command, where it is not on PATH")
    parser.add_argument("--layout", choices=LAYOUTS, action="append", help="this one alone (may be repeated)")
    arguments = parser.parse_args()
    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = (
        builder.config("spark.sql.session.timeZone", "Europe/Oslo").config("spark.driver.memory", "1g").getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    for what in ("datetime", "int96"):  # Spark 3 writes no old dates unless it is told in which calendar
        spark.conf.set(f"spark.sql.parquet.{what}RebaseModeInWrite", "CORRECTED")
    print(f"Spark {spark.version}")
    wrong = 0
    for layout in arguments.layout or LAYOUTS:
        session, options, partitions = LAYOUTS[layout]
        source, output = (arguments.folder / layout / name for name in ("in", "out"))
        source.parent.mkdir(parents=True)
        for name, value in session.items():
            spark.conf.set(name, value)
        corpus(spark).coalesce(1).write.options(**options).partitionBy(partitions).parquet(str(source))
        for name in session:
            spark.conf.unset(name)
        extract(arguments.ner_batch, source, output)
        after = spark.read.parquet(str(output))
        found = differences(spark.read.parquet(str(source)), after, partitions)
        spans = after.selectExpr("text", "explode(entities) as span")
        real = spans.where("substring(text, span.start + 1, span.end - span.start) = span.text")
        if real.count() != spans.count():
            found.append(f"{spans.count() - real.count()} entities are no slices of their text")
        print(f"{layout}: {after.count()} rows, {spans.count()} entities, {len(found)} differences", *found, sep="\n  ")
        wrong += len(found)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
