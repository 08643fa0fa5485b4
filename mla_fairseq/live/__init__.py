"""Live translation in a browser: a server of one page and one WebSocket, over long sessions (extra ``live``)."""
