"""What people deploy: FastAPI with SQLAlchemy's Session on psycopg, as their tutorials show it."""

import os
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))
SessionLocal = sessionmaker(bind=engine)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[int]


class ItemRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    price: int


def session() -> Iterator[Session]:
    with SessionLocal() as current:
        yield current


app = FastAPI()


@app.get("/api/item/{id}", response_model=ItemRead)
def read(id: int, db: Annotated[Session, Depends(session)]) -> Any:
    item = db.get(Item, id)
    if item is None:
        raise HTTPException(404)
    return item


@app.get("/api/slow/{id}")
def slow(id: int, db: Annotated[Session, Depends(session)]) -> dict[str, int]:
    db.execute(text("SELECT pg_sleep(0.2)"))
    return {"id": id}
