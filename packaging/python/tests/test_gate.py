"""The module against a real daemon and a real authority. MACHINEID_PROGRAMS names the directory of the programs."""

import asyncio
import inspect
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from machineid_sidecar import Answer, Denied, Gate, NotAllowed, Undecided, acheck, check, gated

PROGRAMS = pathlib.Path(os.environ["MACHINEID_PROGRAMS"])


class Daemon:
    """`machineid-sidecar --dev`: an authority, the daemon, and the operator's commands."""

    def __init__(self):
        self.process = subprocess.Popen([PROGRAMS / "machineid-sidecar", "--dev"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = ""
        for line in self.process.stderr:
            said += line
            if found := re.search(r"(\S+/machineid) revoke (\S+)", said):
                break
        else:
            raise AssertionError(f"the daemon did not start: {said}")
        self.machineid, self.device = found[1], found[2]
        # The daemon's log must not fill the pipe.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.socket = str(pathlib.Path(self.machineid).parent / "sidecar.sock")
        until(lambda: asked(self.socket, 2) == "yes")

    def fleet(self, verb):
        subprocess.run([self.machineid, verb, self.device], check=True, stdout=subprocess.DEVNULL)

    def end(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(30)


def asked(path, timeout):
    try:
        check(socket=path, timeout=timeout)
        return "yes"
    except Denied:
        return "no"
    except Undecided:
        return "undecided"


def until(holds):
    limit = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


class AgainstTheDaemon(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()

    @classmethod
    def tearDownClass(cls):
        cls.daemon.end()

    def setUp(self):
        os.environ["MACHINEID_SOCKET"] = self.daemon.socket
        self.ran = []

    def functions(self, **settings):
        """One function of each kind under the gate, as a call that has it done."""
        ran = self.ran

        @gated(**settings)
        def plain(what):
            ran.append(what)
            return what

        @gated(**settings)
        async def coroutine(what):
            ran.append(what)
            return what

        @gated(**settings)
        def generator(what):
            ran.append(what)
            got = yield what
            return got

        class Callable:
            async def __call__(self, what):
                ran.append(what)
                return what

        def inside(entered):
            ran.append("with")
            return entered

        def block(_):
            with Gate(**settings) as answer:
                return inside(answer)

        async def ablock(_):
            async with Gate(**settings) as answer:
                return inside(answer)

        return [
            plain,
            lambda what: asyncio.run(coroutine(what)),
            lambda what: next(generator(what)),
            lambda what: asyncio.run(Gate(**settings).gated(Callable())(what)),
            block,
            lambda what: asyncio.run(ablock(what)),
        ]

    def test_1_a_yes_lets_every_kind_of_function_run(self):
        answer = check()
        self.assertIsInstance(answer, Answer)
        self.assertEqual((answer.code, answer.device_id), ("ALLOW", self.daemon.device))
        self.assertEqual(asyncio.run(acheck()).code, "ALLOW")
        self.assertEqual(check(max_age=5, device=self.daemon.device).code, "ALLOW")
        for function in self.functions():
            function("x")
        self.assertEqual(len(self.ran), 6)

    def test_2_a_gated_function_keeps_its_name_its_kind_and_its_exceptions(self):
        @gated
        async def coroutine(to: str) -> str:
            """Says something."""
            raise KeyError(to)

        self.assertTrue(inspect.iscoroutinefunction(coroutine))
        self.assertEqual((coroutine.__name__, coroutine.__doc__), ("coroutine", "Says something."))
        with self.assertRaises(KeyError):
            asyncio.run(coroutine("x"))
        with self.assertRaises(TypeError):

            @gated
            async def generator():
                yield 1

    def test_3_many_ask_at_once_on_one_loop_and_in_threads(self):
        async def many():
            return await asyncio.gather(*(acheck() for _ in range(100)))

        self.assertEqual({one.code for one in asyncio.run(many())}, {"ALLOW"})
        found = []
        threads = [threading.Thread(target=lambda: found.append(asked(None, 10))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, ["yes"] * 20)

    def test_4_another_device_than_those_allowed_here_is_refused(self):
        with self.assertRaises(NotAllowed):
            check(device="no such device !")

    def test_5_a_stopped_daemon_is_undecided_at_the_time_limit(self):
        self.daemon.process.send_signal(signal.SIGSTOP)
        try:
            for ask in (lambda: check(timeout=0.3), lambda: asyncio.run(acheck(timeout=0.3))):
                begun = time.monotonic()
                with self.assertRaisesRegex(Undecided, "gave no answer within 0.3 s; is it stopped or overloaded"):
                    ask()
                self.assertLess(time.monotonic() - begun, 5)
        finally:
            self.daemon.process.send_signal(signal.SIGCONT)
        until(lambda: asked(None, 10) == "yes")

    def test_6_a_revoke_stops_every_kind_of_function_before_it_begins(self):
        self.daemon.fleet("revoke")
        until(lambda: asked(None, 10) == "no")
        for function in self.functions():
            with self.assertRaisesRegex(Denied, "^denied: DEVICE_REVOKED"):
                function("x")
        for function in self.functions(exits=True):
            with self.assertRaises(SystemExit) as caught:
                function("x")
            self.assertEqual(caught.exception.code, 77)
        self.assertEqual(self.ran, [])
        ended = subprocess.run(
            [sys.executable, "-c", "from machineid_sidecar import Gate; Gate(exits=True).check(); print('worked')"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        self.assertEqual((ended.returncode, ended.stdout), (77, ""))
        self.assertRegex(ended.stderr, r"^denied: DEVICE_REVOKED.*\n$")
        self.daemon.fleet("unrevoke")
        until(lambda: asked(None, 10) == "yes")

    def test_7_a_dead_daemon_is_undecided(self):
        self.daemon.process.kill()
        self.daemon.process.wait()
        shutil.rmtree(pathlib.Path(self.daemon.socket).parent / "bin", ignore_errors=True)
        for function in self.functions():
            with self.assertRaisesRegex(Undecided, "nothing listens on .*; is machineid-sidecar running"):
                function("x")
        self.assertEqual(self.ran, [])
        shutil.rmtree(pathlib.Path(self.daemon.socket).parent, ignore_errors=True)


class AgainstOthers(unittest.TestCase):
    def test_a_listener_that_drips_is_given_up_at_the_time_limit(self):
        with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
            path = f"{directory}/socket"
            listener.bind(path)
            listener.listen()
            done = threading.Event()

            def drip():
                for _ in range(2):
                    with listener.accept()[0] as connection:
                        try:
                            while not done.wait(0.05):
                                connection.sendall(b"H")
                        except OSError:
                            pass

            thread = threading.Thread(target=drip)
            thread.start()
            for ask in (lambda: check(socket=path, timeout=0.4), lambda: asyncio.run(acheck(socket=path, timeout=0.4))):
                begun = time.monotonic()
                with self.assertRaises(Undecided):
                    ask()
                self.assertLess(time.monotonic() - begun, 5)
            done.set()
            thread.join()

    def test_a_full_queue_is_waited_for_and_then_undecided(self):
        with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
            path = f"{directory}/socket"
            listener.bind(path)
            listener.listen(0)
            with socket.socket(socket.AF_UNIX) as first:
                first.connect(path)
                for ask in (lambda: check(socket=path, timeout=0.2), lambda: asyncio.run(acheck(socket=path, timeout=0.2))):
                    with self.assertRaisesRegex(Undecided, "gave no answer within"):
                        ask()

    def test_no_path_is_ever_a_yes(self):
        for path in ("/nonexistent/socket", "/dev/null", "/" + "x" * 200, "/with\0zero", "/tmp"):
            for ask in (check, lambda **settings: asyncio.run(acheck(**settings))):
                with self.subTest(path), self.assertRaises(Undecided):
                    ask(socket=path)

    def test_settings_without_sense_are_refused_at_once(self):
        for wrong in ({"timeout": 0}, {"timeout": float("nan")}, {"max_age": -1}, {"max_age": float("inf")}):
            with self.assertRaises(ValueError):
                Gate(**wrong)


if __name__ == "__main__":
    unittest.main()
