"""The example files in deploy/ are accepted by the programs that they are for."""

import subprocess
from pathlib import Path

import pytest

from tests.parts import ROOT


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key, file = tmp_path / "key.pem", tmp_path / "star.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
         "-keyout", str(key), "-out", str(file)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    file.write_text(file.read_text() + key.read_text())
    return file


@pytest.mark.slow
@pytest.mark.real("nginx")
def test_nginx_accepts_its_example(tmp_path: Path, certificate: Path) -> None:
    site = (ROOT / "deploy/nginx/headwater.conf").read_text()
    for name in ("/etc/nginx/star.example.com.pem", "/etc/nginx/star.example.com.key"):
        site = site.replace(name, str(certificate))
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}} http {{ {site}\n}}")
    done = subprocess.run(["nginx", "-t", "-c", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.real("haproxy")
def test_haproxy_accepts_its_example(tmp_path: Path, certificate: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    text = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    config.write_text(text.replace("/etc/haproxy/star.example.com.pem", str(certificate)))
    done = subprocess.run(["haproxy", "-c", "-f", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.real("systemd-analyze")
def test_systemd_accepts_its_example(tmp_path: Path) -> None:
    unit = (
        (ROOT / "deploy/systemd/headwater.service")
        .read_text()
        .replace("/opt/headwater/bin/headwater", "/bin/true")
    )
    file = tmp_path / "headwater.service"
    file.write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, check=False
    )
    told = [line for line in done.stderr.splitlines() if "headwater" in line]
    assert (done.returncode, told) == (0, []), done.stderr
