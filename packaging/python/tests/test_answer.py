"""What counts as a yes: bytes in, an answer or an exception out."""

import pathlib
import re
import unittest

from machineid_sidecar._answer import LONGEST, SENTENCES, Denied, Undecided, judge

YES = b'{"allowed":true,"code":"ALLOW","request_id":"r-1","device_id":"host:1","validated_at":"2026-11-24T14:03:20Z","age_ms":12,"reason":null}'
NO = b'{"allowed":false,"code":"DEVICE_REVOKED","request_id":"r-1","device_id":"host:1","validated_at":null,"age_ms":null,"reason":"by ann"}'
BUSY = b'{"allowed":false,"code":"STARTING","request_id":null,"device_id":null,"validated_at":null,"age_ms":null,"reason":null}'


def answer(status, body, more=b"", length=None):
    length = len(body) if length is None else length
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n%s" % (status, length, more, body)


class WhatCounts(unittest.TestCase):
    def test_a_yes_is_status_200_with_an_object_that_says_allowed(self):
        yes = judge(answer(b"200 OK", YES))
        self.assertEqual((yes.code, yes.request_id, yes.device_id, yes.age_ms), ("ALLOW", "r-1", "host:1", 12))

    def test_a_no_says_the_code_the_request_and_the_reason(self):
        with self.assertRaises(Denied) as caught:
            judge(answer(b"403 Forbidden", NO))
        self.assertEqual(str(caught.exception), "denied: DEVICE_REVOKED (request_id r-1): by ann")
        self.assertEqual((caught.exception.code, caught.exception.exit_code), ("DEVICE_REVOKED", 77))

    def test_a_403_without_a_readable_body_is_a_no(self):
        for body in (b"", b"<html>", b"[]", b"{"):
            with self.assertRaises(Denied):
                judge(answer(b"403 Forbidden", body))

    def test_no_decision_says_its_sentence_and_when_to_ask_again(self):
        with self.assertRaises(Undecided) as caught:
            judge(answer(b"503 Service Unavailable", BUSY, b"retry-after: 2\r\n"))
        self.assertEqual(str(caught.exception), "could not find out whether to go on: STARTING: no decision yet")
        self.assertEqual((caught.exception.retry_after, caught.exception.exit_code), (2.0, 75))

    def test_everything_else_is_undecided(self):
        for received in (
            b"",
            b"hello",
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 2000 OK\r\n\r\n" + YES,
            answer(b"204 No Content", YES),
            answer(b"202 Accepted", YES),
            answer(b"503 Busy", YES),
            answer(b"302 Found", YES),
            answer(b"100 Continue", YES),
            answer(b"200 OK", b""),
            answer(b"200 OK", NO),
            answer(b"200 OK", b"<html>yes</html>"),
            answer(b"200 OK", b"[true]"),
            answer(b"200 OK", b"true"),
            answer(b"200 OK", YES.replace(b"true", b'"true"')),
            answer(b"200 OK", YES.replace(b"true", b"1")),
            answer(b"200 OK", YES.replace(b"true", b"null")),
            answer(b"200 OK", YES.replace(b'"ALLOW"', b"null")),
            answer(b"200 OK", YES.replace(b'{"', b'{"allowed":false,"')),
            answer(b"200 OK", YES, length=len(YES) + 1),
            answer(b"200 OK", YES[:-1]),
            answer(b"200 OK", b"\xff" + YES),
            answer(b"200 OK", b"[" * 60_000),
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n" + YES,
            answer(b"200 OK", YES + b" " * LONGEST),
        ):
            with self.subTest(received[:60]), self.assertRaises(Undecided):
                judge(received)

    def test_the_sentences_are_those_of_the_http_reference(self):
        page = pathlib.Path(__file__).resolve().parents[3] / "docs/http.md"
        table = page.read_text().split("### Codes of the daemon", 1)[1].split("\n### ", 1)[0]
        documented = {}
        for codes, sentences in re.findall(r"^\| (`[A-Z_`, ]+`) \| \d+ \| (.*) \|$", table, re.MULTILINE):
            names = re.findall(r"`([A-Z_]+)`", codes)
            parts = sentences.replace("`", "").split("; ")
            # "may not name this device; may not name this process" has its subject once.
            if len(names) == 2:
                parts[1] = "the client " + parts[1]
            documented.update(zip(names, parts))
        self.assertEqual(documented, SENTENCES)


if __name__ == "__main__":
    unittest.main()
