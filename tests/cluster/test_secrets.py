"""No secret stands anywhere in `cluster/`: not as a value, not in a URL, not as a key that somebody pasted.

Nothing is faked: every file of the folder is read. What a secret looks like is shown by examples that have to be found.
"""

import re
from pathlib import Path

import pytest

CLUSTER = Path(__file__).parents[2] / "cluster"
LOOKS_LIKE_ONE = {
    "a password in a URL": r"://[^\s:/@$<{]+:[^\s@/$<{]+@",
    "a key of AWS": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a token of GitHub, Slack or Hugging Face": r"\b(ghp_|xox[bp]-|hf_)[A-Za-z0-9-]{16,}",
    "a secret as an object": r"(?m)^kind:\s*Secret\b",
    "a value of something secret": r"(?im)^\s*-?\s*[\w.-]*(password|passwd|secret_key|auth_token|api_key)[\w.-]*"
    r"\s*[:=]\s*['\"]?[A-Za-z0-9+/]{6,}",
    "a variable with something secret": r"(?im)name:\s*\w*(PASSWORD|TOKEN|SECRET\w*|KEY)\s*\n\s*value:\s*\S",
}


def found(text: str) -> list[str]:
    return [what for what, pattern in LOOKS_LIKE_ONE.items() if re.search(pattern, text)]


@pytest.mark.parametrize(
    "path", [path for path in sorted(CLUSTER.rglob("*")) if path.is_file() and "__pycache__" not in path.parts], ids=str
)
def test_the_file_holds_no_secret(path):
    complaints = found(path.read_text(encoding="utf-8"))

    if path.suffix == ".py":  # `password = made_up()` is a program's business
        complaints = [one for one in complaints if one != "a value of something secret"]
    assert complaints == []


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a password in a URL", "postgresql://mlflow:hunter2@postgres/mlflow"),
        ("a key of AWS", "AWS_ACCESS_KEY_ID: AKIA" + "Q" * 16),
        ("a private key", "-----BEGIN RSA PRIVATE KEY-----"),
        ("a token of GitHub, Slack or Hugging Face", "hf_" + "a" * 30),
        ("a secret as an object", "apiVersion: v1\nkind: Secret\n"),
        ("a value of something secret", "admin_password = correcthorse"),
        ("a value of something secret", "  mlflow-password: correcthorse"),
        ("a variable with something secret", "- name: PGPASSWORD\n  value: x"),
    ],
)
def test_a_secret_would_be_found(what, text):
    assert what in found(text)


def test_a_reference_to_a_secret_is_none():
    reference = "- name: PGPASSWORD\n  valueFrom:\n    secretKeyRef: {name: postgres, key: mlflow-password}\n"

    assert found(reference) == []
