import base64
import dataclasses

import pytest

from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.http.pages import decode_token, encode_token
from tests.factories.sample_service import toy_app

KEY = b"k" * 32


async def walk(caller, path="/api/toys?numbers=10&page_size=3"):
    seen: list[int] = []
    token, pages = "", 0
    while True:
        body = (await caller.http.get(path + (f"&page_token={token}" if token else ""))).json()
        seen, pages = seen + body["items"], pages + 1
        token = body["next_page_token"]
        if not token:
            return seen, pages


class TestPages:
    async def test_pages_meet_each_item_once_and_in_order(self, ada):
        assert await walk(ada) == (list(range(10)), 4)

    async def test_a_last_page_that_is_just_full_is_the_last(self, ada):
        assert await walk(ada, "/api/toys?numbers=9&page_size=3") == (list(range(9)), 3)

    @pytest.mark.parametrize("size", ["0", "-1", "1001", "x", "1.5", "9" * 30])
    async def test_a_size_out_of_bounds_is_named(self, ada, size):
        response = await ada.http.get(f"/api/toys?page_size={size}")
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "page_size"

    async def test_a_limit_below_the_usual_page_makes_that_smaller(self, play, runtime):
        small = dataclasses.replace(runtime, settings=runtime.settings.model_copy(update={"max_page_size": 3}))
        ada = await play.caller(app=toy_app(small))
        assert await walk(ada, "/api/toys?numbers=10") == (list(range(10)), 4)
        assert (await ada.http.get("/api/toys?page_size=4")).status_code == 422

    async def test_a_token_of_another_list_is_refused(self, ada):
        token = (await ada.http.get("/api/toys-by-name?page_size=1")).json()["next_page_token"]
        response = await ada.http.get(f"/api/toys?page_token={token}")
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "page_token"

    async def test_a_tampered_token_is_refused(self, ada):
        token = (await ada.http.get("/api/toys?page_size=1")).json()["next_page_token"]
        for place in range(len(token)):
            other = "A" if token[place] != "A" else "B"
            changed = token[:place] + other + token[place + 1 :]
            if base64.urlsafe_b64decode(changed + "==") != base64.urlsafe_b64decode(token + "=="):
                assert (await ada.http.get("/api/toys", params={"page_token": changed})).status_code == 422


class TestTokens:
    @pytest.mark.parametrize("values", [("a",), (1, "b", None), (1.5, b"x"), ("ü" * 100,)])
    def test_they_carry_their_values(self, values):
        assert decode_token(KEY, encode_token(KEY, values)) == values

    @pytest.mark.parametrize("token", ["", "=", "A", "AAAA", "ü", "\ud800", "a b", "x" * 2000, "!!!!"])
    def test_anything_else_is_invalid_input(self, token):
        with pytest.raises(InvalidInput):
            decode_token(KEY, token)

    def test_one_of_another_key_is_invalid_input(self):
        with pytest.raises(InvalidInput):
            decode_token(b"z" * 32, encode_token(KEY, ("a",)))
