"""The options with which ``s3://`` URIs are read and written, where no evolution has them."""

from __future__ import annotations

import argparse

from pydantic import ValidationError

from selfemo_api.api_model import first_problem
from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput


def add_s3_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of an S3 server. Credentials are those that boto3 finds.

    Parameters
    ----------
    parser
        The parser of the command.
    """
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        help="the URL of an S3 server. Default: AWS_ENDPOINT_URL, or AWS",
    )
    parser.add_argument(
        "--region", help="the region of the bucket. Default: the environment's region"
    )
    parser.add_argument(
        "--path-style",
        action="store_true",
        help="use path-style S3 URLs. Many self-hosted servers require it",
    )


def s3_storage(arguments: argparse.Namespace) -> StorageSpec | None:
    """Return the options of an S3 server, or None if none is given.

    Parameters
    ----------
    arguments
        The parsed arguments.

    Raises
    ------
    BadInput
        If an option is not valid.
    """
    if not (arguments.endpoint or arguments.region or arguments.path_style):
        return None
    try:
        return StorageSpec(
            uri="s3://bucket",
            endpoint=arguments.endpoint,
            region=arguments.region,
            path_style=arguments.path_style,
        )
    except ValidationError as error:
        name, message = first_problem(error)
        raise BadInput(f"--{name.replace('_', '-')}: {message}") from None
