-- Messages that are to be sent once the transaction that writes them is committed.

CREATE TABLE IF NOT EXISTS onlyonce_mail_outbox (
  -- Never given to another row: who tells a row what became of it means this one.
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL,
  sender TEXT NOT NULL,
  recipient TEXT NOT NULL,
  message NOT NULL,
  -- By this machine's clock, in milliseconds since 1970.
  posted INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting'
    CHECK (state IN ('waiting', 'taken', 'unknown', 'sent', 'refused')),
  -- Whose it is, and since when by that one's clock, in milliseconds since 1970.
  taken_by TEXT,
  taken INTEGER,
  said TEXT,
  ended TEXT,
  UNIQUE (key, recipient),
  CHECK ((state = 'waiting') = (taken_by IS NULL AND taken IS NULL))
);

CREATE INDEX IF NOT EXISTS onlyonce_mail_states ON onlyonce_mail_outbox (state, number);

-- Written into in the caller's transaction. The same message again changes nothing; another one
-- under the same key and recipient is an error, whatever the statement says of conflicts.
DROP VIEW IF EXISTS onlyonce_mail_send;
CREATE VIEW onlyonce_mail_send AS
  SELECT key, sender, recipient, message FROM onlyonce_mail_outbox;
CREATE TRIGGER onlyonce_mail_sends INSTEAD OF INSERT ON onlyonce_mail_send BEGIN
  SELECT CASE
    WHEN typeof(NEW.key) <> 'text' OR NEW.key GLOB '*[^ -~]*' OR trim(NEW.key) = ''
      OR 255 < length(NEW.key)
      THEN RAISE(ABORT, 'onlyonce: the key must be 1 to 255 bytes of printable ASCII')
    WHEN typeof(NEW.sender) <> 'text' OR instr(NEW.sender, '@') = 0
      OR typeof(NEW.recipient) <> 'text' OR instr(NEW.recipient, '@') = 0
      OR typeof(NEW.message) NOT IN ('text', 'blob')
      THEN RAISE(ABORT, 'onlyonce: a message needs a sender and a recipient, each with an @, and a text')
    WHEN EXISTS (
      SELECT 1 FROM onlyonce_mail_outbox there
      WHERE there.key = NEW.key AND there.recipient = NEW.recipient AND (
        there.sender <> NEW.sender OR CAST(there.message AS BLOB) <> CAST(NEW.message AS BLOB)
      )
    )
      THEN RAISE(ABORT, 'onlyonce: another message to this recipient was written with this key')
  END;
  INSERT INTO onlyonce_mail_outbox (key, sender, recipient, message, posted)
  SELECT NEW.key, NEW.sender, NEW.recipient, NEW.message,
    CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
  WHERE NOT EXISTS (
    SELECT 1 FROM onlyonce_mail_outbox there
    WHERE there.key = NEW.key AND there.recipient = NEW.recipient
  );
END;
