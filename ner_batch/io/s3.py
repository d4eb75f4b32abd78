"""Buckets of S3 as file systems: s3fs, set up by the environment and asked for once before work begins.

Credentials, profile, region and endpoint (``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``) are botocore's, read as
Amazon's own tools read them. Without any credentials requests go unsigned, which is what public buckets want.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import aiohttp
import botocore.session
import s3fs
from botocore import UNSIGNED
from botocore import exceptions as boto
from botocore.config import Config

ATTEMPTS = 5
CONNECTIONS = 32  # to a server at once, of a process: 16 threads that read footers, and parts of uploads beside them

_BROKEN_ANSWER = (boto.HTTPClientError, boto.IncompleteReadError, aiohttp.ClientPayloadError)
_NO_CONNECTION = (boto.ConnectionError, boto.HTTPClientError)
_NO_CREDENTIALS = (
    *(boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.TokenRetrievalError),
    *(boto.ConfigParseError, boto.ProfileNotFound, boto.SSOError),
)
_MAY_STILL_BE_READ = ("AccessDenied", "AllAccessDisabled", "403")  # who may not list may still read and write
_REGION = "us-east-1"


class S3FileSystem(s3fs.S3FileSystem):  # type: ignore[misc]
    """s3fs with five attempts in all, and every failure of a connection or of credentials an OSError."""

    retries = 1  # botocore repeats already, 500 to 504 too; with s3fs's own it would be 25 attempts, 125 for a read

    async def _call_s3(self, method: str, *options: Any, **arguments: Any) -> Any:
        try:
            return await super()._call_s3(method, *options, **arguments)
        except (*_NO_CONNECTION, *_NO_CREDENTIALS) as error:
            raise ConnectionError(str(error)) from error
        except boto.BotoCoreError as error:
            raise OSError(str(error)) from error

    async def _cat_file(self, path: str, *options: Any, **arguments: Any) -> bytes:
        """The bytes of a file or of a range, in one request; five attempts where the answer breaks off."""
        arguments.setdefault("max_concurrency", 1)  # otherwise s3fs asks for the size first
        for attempt in range(ATTEMPTS):
            try:
                return bytes(await super()._cat_file(path, *options, **arguments))
            except _BROKEN_ANSWER as error:
                if attempt == ATTEMPTS - 1:
                    raise ConnectionError(f"the answer broke off {ATTEMPTS} times: {error}") from error
                await asyncio.sleep(0.1 * 2**attempt)
        raise AssertionError


# By process, bucket and environment. The process, since a forked child may not use its parent's connections; a plain
# dict that forgets nothing, since a parent's file system collected in the child would close the parent's connections.
_BUCKETS: dict[tuple[int, str, frozenset[tuple[str, str]]], S3FileSystem] = {}


# Environments that had credentials: where a file of them is being written anew there are none for a moment, and who
# asked without would be refused for good.
_SIGNED: set[frozenset[tuple[str, str]]] = set()


def open_bucket(bucket: str) -> S3FileSystem:
    """The file system of a bucket, which the server is asked for when a process uses it first.

    Raises:
        OSError: no such bucket, no answer from the endpoint within seconds, refused or broken credentials.
    """
    environment = frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    key = (os.getpid(), bucket, environment)
    return _BUCKETS.get(key) or _BUCKETS.setdefault(key, _connected(bucket, environment))


def forget_buckets() -> None:
    """Forget this process's file systems; who uses one at the moment keeps it."""
    for key in [key for key in _BUCKETS if key[0] == os.getpid()]:
        _BUCKETS.pop(key, None)


def _connected(bucket: str, environment: frozenset[tuple[str, str]]) -> S3FileSystem:
    """Ask for the bucket with little patience, and make the file system, which has much."""
    try:
        session = botocore.session.Session()
        region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
        unsigned = session.get_credentials() is None
        if unsigned and environment in _SIGNED:
            raise ConnectionError("there are no credentials at the moment")
        signature = {"signature_version": UNSIGNED} if unsigned else {}
        config = Config(**_options(connect_timeout=4, read_timeout=4, attempts=2), **signature)
        client = session.create_client("s3", region_name=region or _REGION, config=config)
        answer = client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except boto.ClientError as error:
        refusal = error.response["Error"]
        if refusal["Code"] not in _MAY_STILL_BE_READ:
            cause = "no such bucket" if refusal["Code"] == "NoSuchBucket" else refusal.get("Message") or refusal["Code"]
            raise OSError(cause) from error
        answer = error.response
    except _NO_CONNECTION as error:
        raise ConnectionError(str(error)) from error
    except _NO_CREDENTIALS as error:
        raise (ConnectionError if environment in _SIGNED else OSError)(str(error)) from error
    except (boto.BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is not a URL
        raise OSError(str(error)) from error
    if not unsigned:
        _SIGNED.add(environment)
    home = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("x-amz-bucket-region")
    return S3FileSystem(
        anon=unsigned,
        client_kwargs={"region_name": region or home or _REGION},
        config_kwargs=_options(connect_timeout=5, read_timeout=60, attempts=ATTEMPTS),
        use_listings_cache=False,  # other processes write here: a listing is of this moment
        skip_instance_cache=True,
    )


def _options(connect_timeout: float, read_timeout: float, attempts: int) -> dict[str, Any]:
    return {
        "connect_timeout": connect_timeout,
        "read_timeout": read_timeout,
        "retries": {"total_max_attempts": attempts, "mode": "standard"},
        "max_pool_connections": CONNECTIONS,
        "request_checksum_calculation": "when_required",  # servers other than Amazon's often refuse the rest
        "response_checksum_validation": "when_required",
    }
