-- Messages that are to be sent once the transaction that writes them is committed.

CREATE SCHEMA IF NOT EXISTS onlyonce_mail;

CREATE TABLE IF NOT EXISTS onlyonce_mail.outbox (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key text NOT NULL,
  sender text NOT NULL,
  recipient text NOT NULL,
  message text NOT NULL,
  -- By this server's clock, in milliseconds since 1970.
  posted bigint NOT NULL,
  state text NOT NULL DEFAULT 'waiting'
    CHECK (state IN ('waiting', 'taken', 'unknown', 'sent', 'refused')),
  -- Whose it is, and since when by that one's clock, in milliseconds since 1970.
  taken_by text,
  taken bigint,
  said text,
  ended timestamptz,
  UNIQUE (key, recipient),
  CHECK ((state = 'waiting') = (taken_by IS NULL AND taken IS NULL))
);

CREATE INDEX IF NOT EXISTS outbox_open ON onlyonce_mail.outbox (number)
  WHERE state IN ('waiting', 'taken', 'unknown');

-- Written in the caller's transaction: true if it is new, false if the same is there already.
-- Another message under the same key and recipient is an error.
CREATE OR REPLACE FUNCTION onlyonce_mail.send(
  key text, sender text, recipient text, message text
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  there onlyonce_mail.outbox%ROWTYPE;
BEGIN
  IF send.key IS NULL OR send.key !~ '^[ -~]{1,255}$' OR send.key ~ '^ *$' THEN
    RAISE EXCEPTION 'onlyonce: the key must be 1 to 255 bytes of printable ASCII'
      USING ERRCODE = '22023', DETAIL = 'It did not happen in this transaction.',
        HINT = 'Name the message by a key that is, the same each time.';
  ELSIF send.sender IS NULL OR send.recipient IS NULL OR send.message IS NULL
    OR position('@' IN send.sender) = 0 OR position('@' IN send.recipient) = 0 THEN
    RAISE EXCEPTION 'onlyonce: a message needs a sender and a recipient, each with an @, and a text'
      USING ERRCODE = '22023', DETAIL = 'It did not happen in this transaction.',
        HINT = 'Mend the call.';
  END IF;
  INSERT INTO onlyonce_mail.outbox (key, sender, recipient, message, posted)
  VALUES (send.key, send.sender, send.recipient, send.message,
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
  ON CONFLICT (key, recipient) DO NOTHING;
  IF FOUND THEN
    RETURN true;
  END IF;
  SELECT * INTO there FROM onlyonce_mail.outbox o
  WHERE o.key = send.key AND o.recipient = send.recipient;
  IF there.sender = send.sender AND there.message = send.message THEN
    RETURN false;
  END IF;
  RAISE EXCEPTION 'onlyonce: another message to this recipient was written with this key'
    USING ERRCODE = '23505', DETAIL = 'It did not happen in this transaction.',
      HINT = 'A new message needs a new key.';
END $$;

-- Makes rows that nobody has ours.
CREATE OR REPLACE FUNCTION onlyonce_mail.take(who text, now bigint, most integer)
RETURNS SETOF onlyonce_mail.outbox
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY UPDATE onlyonce_mail.outbox o
    SET state = 'taken', taken_by = take.who, taken = take.now
    FROM (
      SELECT number FROM onlyonce_mail.outbox WHERE state = 'waiting'
      ORDER BY number LIMIT take.most FOR UPDATE SKIP LOCKED
    ) waiting WHERE o.number = waiting.number RETURNING o.*;
END $$;

-- Rows that are ours and have not ended.
CREATE OR REPLACE FUNCTION onlyonce_mail.ours(who text, beyond bigint, most integer)
RETURNS SETOF onlyonce_mail.outbox
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT * FROM onlyonce_mail.outbox
    WHERE state IN ('taken', 'unknown') AND taken_by = ours.who AND ours.beyond < number
    ORDER BY number LIMIT ours.most;
END $$;

-- Writes down what became of a row of ours, or that it goes on. What has ended stays so.
CREATE OR REPLACE FUNCTION onlyonce_mail.tell(who text, number bigint, state text, said text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  IF tell.state NOT IN ('unknown', 'taken', 'sent', 'refused') THEN
    RAISE EXCEPTION 'onlyonce: % is no end of a message', tell.state USING ERRCODE = '22023';
  END IF;
  UPDATE onlyonce_mail.outbox o SET state = tell.state, said = tell.said,
    ended = CASE WHEN tell.state IN ('sent', 'refused') THEN clock_timestamp() END
  WHERE o.number = tell.number AND o.taken_by = tell.who AND o.state IN ('taken', 'unknown');
END $$;

-- How many rows there are of each kind: those that `who` has taken, and the others.
CREATE OR REPLACE FUNCTION onlyonce_mail.counts(who text)
RETURNS TABLE (state text, ours boolean, rows bigint, oldest bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT o.state, coalesce(o.taken_by = counts.who, false), count(*), min(o.posted)
  FROM onlyonce_mail.outbox o GROUP BY 1, 2 ORDER BY 1, 2
$$;

REVOKE ALL ON FUNCTION onlyonce_mail.send, onlyonce_mail.take, onlyonce_mail.ours,
  onlyonce_mail.tell, onlyonce_mail.counts FROM PUBLIC;
