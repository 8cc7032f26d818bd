CREATE TABLE IF NOT EXISTS stock (
    item text PRIMARY KEY,
    free integer NOT NULL CHECK (free >= 0)
);
CREATE TABLE IF NOT EXISTS reservations (
    number text PRIMARY KEY,
    item text NOT NULL REFERENCES stock (item),
    quantity integer NOT NULL,
    confirmation text NOT NULL
);
