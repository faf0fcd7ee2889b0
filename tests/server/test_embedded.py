from mlops_platform.server import embedded


class TestConnections:
    async def test_the_embedded_server_takes_as_many_as_the_pools_may_open(self, settings, monkeypatch):
        made = []

        class Server:
            def __init__(self, home, *, max_connections):
                made.append(max_connections)

            def start(self):
                raise KeyboardInterrupt

        monkeypatch.setattr(embedded, "EmbeddedPostgres", Server)
        for size in (10, 200):
            try:
                async with embedded._database(settings.model_copy(update={"database_pool_size": size})):
                    pass
            except KeyboardInterrupt:
                pass
        assert made[0] == 100
        assert made[1] >= 250
