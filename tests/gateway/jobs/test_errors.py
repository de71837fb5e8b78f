"""What a database says of an error is logged, and has nothing of what people wrote."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from shop import Shop

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs.tables import jobs


def test_no_prompt_is_in_an_error(shop: Shop) -> None:
    order = shop.order("a secret prompt")
    values = {"id": order.id, "tenant": "t", "status": "queued", "urgent": False, "model": "m", "created_at": 0.0}
    again = sa.insert(jobs).values(**values, prompt="a secret prompt", options="{}", portrait="p")
    with pytest.raises(sa.exc.IntegrityError) as violated, shop.database.transaction() as connection:
        connection.execute(again)
    with pytest.raises(StorageUnavailable) as failed, shop.database.transaction() as connection:
        connection.execute(sa.text("SELECT nothing FROM nowhere WHERE x = :x"), {"x": "a secret prompt"})
    for error in (violated.value, failed.value, failed.value.__cause__):
        assert "secret" not in str(error)
