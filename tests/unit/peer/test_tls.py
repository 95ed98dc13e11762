"""Certificates instead of the secret, and beside it."""

import asyncio
import shutil
import subprocess

import pytest

from headwater.kit.errors import Misconfigured, Unavailable
from headwater.peer import connection
from headwater.peer.connection import Kind, Refused, Tls
from tests.unit.peer.nodes import LOOPS, changed, counted, dialled, identity, listening
from tests.unit.peer.test_handshake import until

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed: no certificates"
)
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-x509")


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Authorities `own` and `other`, each with certificates of the nodes a and b."""
    folder = tmp_path_factory.mktemp("certificates")
    found = {}
    for authority in ("own", "other"):
        signer = folder / f"{authority}.pem"
        openssl("req", *NEW_KEY, "-subj", f"/CN={authority}", "-keyout", f"{signer}.key", "-out", str(signer))
        for node in "ab":
            shown = folder / f"{authority}-{node}.pem"
            openssl(
                "req", *NEW_KEY, "-subj", f"/CN=node-{node}", "-CA", str(signer), "-CAkey", f"{signer}.key",
                "-keyout", f"{shown}.key", "-out", str(shown),
            )  # fmt: skip
            found[authority, node] = Tls(str(shown), f"{shown}.key", str(signer))
    return found


@pytest.fixture(params=sorted(LOOPS))
def run(request):
    def run_on(work):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(work)

    return run_on


@pytest.mark.parametrize("secret", [b"", b"a secret beside the certificates"])
def test_nodes_with_certificates_of_one_authority_speak(certificates, run, secret):
    async def main():
        here = identity("a", secret=secret, tls=certificates["own", "a"])
        there = identity("b", secret=secret, tls=certificates["own", "b"])
        async with listening(here) as listener, dialled(listener.address, there) as peer:
            for n, size in enumerate((0, 5000, 3_000_000)):
                await peer.send(Kind.DATA, {"n": n}, bytes(size))
                assert await peer.receive() == (Kind.DATA, {"n": n}, bytes(size))
            assert peer.peer.node == "a" * 16
            assert peer.link.transport.get_extra_info("cipher") is not None

    run(main())


@pytest.mark.parametrize("stranger", ["dials", "listens"])
def test_a_certificate_of_another_authority_is_refused(certificates, run, stranger):
    async def main():
        whose = {"dials": ("own", "other"), "listens": ("other", "own")}[stranger]
        here = identity("a", secret=b"", tls=certificates[whose[0], "a"])
        there = identity("b", secret=b"", tls=certificates[whose[1], "b"])
        served: list = []
        async with listening(here, served.append) as listener:
            with pytest.raises(Refused) as caught:
                await connection.dial(listener.address, there)
            await until(lambda: counted(here))
        assert caught.value.code == "tls"
        assert counted(here) == counted(there) == {"tls": 1}
        assert not served

    run(main())


def test_who_trusts_everybody_but_shows_a_foreign_certificate_is_refused(certificates, run):
    """Only the listening side looks at it: the dialler believes in the listener's authority."""

    async def main():
        own, other = certificates["own", "a"], certificates["other", "b"]
        here = identity("a", secret=b"", tls=own)
        there = identity("b", secret=b"", tls=Tls(other.certificate, other.key, own.authority))
        async with listening(here) as listener:
            with pytest.raises(Refused) as caught:
                await connection.dial(listener.address, there)
        assert caught.value.code == "tls"
        assert "certificate" in str(caught.value)

    run(main())


def test_certificates_do_not_stand_in_for_a_wrong_secret(certificates, run):
    async def main():
        here = identity("a", tls=certificates["own", "a"])
        async with listening(here) as listener:
            for secret in (b"another secret", b""):
                there = identity("b", secret=secret, tls=certificates["own", "b"])
                with pytest.raises(Refused) as caught:
                    await connection.dial(listener.address, there)
                assert caught.value.code == "wrong_secret"

    run(main())


def test_one_side_with_tls_and_one_without_say_so(certificates, run):
    async def main():
        plain, sealed = identity("a"), identity("b", tls=certificates["own", "b"])
        async with listening(plain) as listener:
            with pytest.raises(Refused) as caught:
                await connection.dial(listener.address, sealed)
            assert caught.value.code == "tls"
            await until(lambda: counted(plain))
            assert counted(plain) == {"tls": 1}
        here = changed(sealed)
        async with listening(here) as listener:
            with pytest.raises(Unavailable, match="may ask for TLS"):
                await connection.dial(listener.address, plain)
            await until(lambda: counted(here))
            assert counted(here) == {"tls": 1}

    run(main())


def test_files_that_are_no_certificates_are_said_with_their_names(certificates, tmp_path):
    own = certificates["own", "a"]
    empty = tmp_path / "empty.pem"
    empty.touch()
    openssl("ec", "-in", own.key, "-aes256", "-passout", "pass:x", "-out", str(tmp_path / "sealed.key"))
    for tls in (
        Tls(str(tmp_path / "none.pem"), own.key, own.authority),
        Tls(str(empty), own.key, own.authority),
        Tls(own.certificate, certificates["own", "b"].key, own.authority),
        Tls(own.certificate, str(tmp_path / "sealed.key"), own.authority),
        Tls(own.certificate, own.key, str(empty)),
    ):
        with pytest.raises(Misconfigured, match=r"cluster\.tls") as caught:
            tls.context(listening=True)
        assert tls.certificate in caught.value.message


def test_a_renewed_certificate_is_used_by_the_next_connection(certificates, run, tmp_path):
    async def main():
        files = Tls(*(str(tmp_path / name) for name in ("node.pem", "node.key", "authority.pem")))
        place(certificates["other", "a"], files)
        here = identity("a", secret=b"", tls=files)
        there = identity("b", secret=b"", tls=certificates["own", "b"])
        async with listening(here) as listener:
            with pytest.raises(Refused):
                await connection.dial(listener.address, there)
            place(certificates["own", "a"], files)
            async with dialled(listener.address, there):
                pass

    def place(tls, files):
        for source, target in zip((tls.certificate, tls.key, tls.authority), vars_of(files), strict=True):
            shutil.copyfile(source, target)

    def vars_of(files):
        return files.certificate, files.key, files.authority

    run(main())
