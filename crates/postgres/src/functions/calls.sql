-- What callers call.

CREATE OR REPLACE FUNCTION onlyonce._refuse(says text, hint text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'onlyonce: %', says
    USING ERRCODE = '22023', DETAIL = 'It did not happen in this transaction.', HINT = hint;
END $$;

DROP FUNCTION IF EXISTS onlyonce._millis(interval);
DROP FUNCTION IF EXISTS onlyonce.complete(
  text, text, bigint, integer, bytea, interval, interval, interval);

-- An interval in milliseconds, within the bounds that the core has.
CREATE OR REPLACE FUNCTION onlyonce._span(
  what text, span interval, low numeric, high numeric, bounds text
) RETURNS numeric LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  millis CONSTANT numeric := trunc(extract(epoch FROM span)::numeric * 1000);
BEGIN
  IF millis IS NULL OR millis < low OR high < millis THEN
    PERFORM onlyonce._refuse(format('%s must be %s', what, bounds), 'Mend the call.');
  END IF;
  RETURN millis;
END $$;

CREATE OR REPLACE FUNCTION onlyonce._skew(span interval) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
  SELECT onlyonce._span('skew_max', span, 0, 3600000, 'at most an hour')
$$;

CREATE OR REPLACE FUNCTION onlyonce._now() RETURNS numeric
LANGUAGE sql VOLATILE AS $$
  SELECT trunc(extract(epoch FROM clock_timestamp())::numeric * 1000)
$$;

-- As far as PostgreSQL can name it.
CREATE OR REPLACE FUNCTION onlyonce._instant(millis numeric) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
  SELECT to_timestamp(least(millis, 253402300799000)::double precision / 1000)
$$;

-- Scope and key as the store finds their record.
CREATE OR REPLACE FUNCTION onlyonce._key_id(secret bytea, scope text, key text) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF scope IS NULL OR 1024 < octet_length(convert_to(scope, 'UTF8')) THEN
    PERFORM onlyonce._refuse('the scope must have at most 1024 bytes', 'Name whose key it is.');
  ELSIF key IS NULL OR key !~ '^[ -~]{1,255}$' OR key ~ '^ *$' THEN
    PERFORM onlyonce._refuse('the key must be 1 to 255 bytes of printable ASCII',
      'Send it with a key that is, and the same key each time.');
  END IF;
  RETURN substring(
    onlyonce._mac(secret, convert_to(scope, 'UTF8'), convert_to(key, 'UTF8')) FOR 16);
END $$;

-- The time that a UUIDv7 carries (RFC 9562 section 5.7).
CREATE OR REPLACE FUNCTION onlyonce._key_time(key text) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF key !~* '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' THEN
    RETURN NULL;
  END IF;
  RETURN ('x' || lpad(replace(left(key, 13), '-', ''), 16, '0'))::bit(64)::bigint;
END $$;

-- Writes a record and notes its revision; false if another one stands there by now.
CREATE OR REPLACE FUNCTION onlyonce._put(id bytea, expected numeric, r onlyonce._record)
RETURNS boolean LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  IF expected IS NULL THEN
    INSERT INTO onlyonce.records (id, revision, state, due_at, record)
    VALUES (_put.id, r.revision::bigint, r.state, onlyonce._due_at(r), onlyonce._write(_put.id, r))
    ON CONFLICT (id) DO NOTHING;
  ELSE
    UPDATE onlyonce.records SET revision = r.revision::bigint, state = r.state,
      due_at = onlyonce._due_at(r), record = onlyonce._write(_put.id, r)
    WHERE id = _put.id AND revision = expected::bigint;
  END IF;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  PERFORM setval('onlyonce.noted', r.revision::bigint)
  FROM onlyonce.noted n WHERE n.last_value < r.revision;
  RETURN true;
END $$;

-- Fails if the floor was raised since the snapshot of the transaction was taken: only a lock looks at
-- what is newer. It is given up at once, so that it holds up nobody who raises the floor.
CREATE OR REPLACE FUNCTION onlyonce._floor_seen() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM s.floor FROM onlyonce.store s FOR SHARE;
  RAISE EXCEPTION USING ERRCODE = 'OO002';
EXCEPTION WHEN SQLSTATE 'OO002' THEN
  NULL;
END $$;

-- The store, if it may be used.
CREATE OR REPLACE FUNCTION onlyonce._store() RETURNS onlyonce.store LANGUAGE plpgsql AS $$
DECLARE
  store onlyonce.store;
BEGIN
  SELECT * INTO STRICT store FROM onlyonce.store;
  IF store.version <> 2 THEN
    PERFORM onlyonce._refuse('a newer onlyonce has made the store', 'Install its functions.');
  END IF;
  PERFORM FROM onlyonce.records t WHERE t.id = convert_to('onlyonce''s mark!', 'UTF8');
  IF FOUND THEN
    PERFORM onlyonce._refuse('the store was moved, or is being moved or put back into use',
      'onlyonce doctor says more.');
  END IF;
  PERFORM FROM onlyonce.records t WHERE t.id = convert_to('onlyonce''s keys!', 'UTF8');
  IF FOUND THEN
    PERFORM onlyonce._refuse('answers in this store are encrypted, and those of a caller''s '
      'transaction cannot be', 'Use another store for one of the two.');
  END IF;
  RETURN store;
END $$;

-- Asks to be the only one who runs the operation, in this transaction. See docs/transaction.md.
CREATE OR REPLACE FUNCTION onlyonce.claim(
  scope text, key text, request bytea,
  lease interval DEFAULT '30 seconds', remember interval DEFAULT '30 days',
  on_unknown text DEFAULT 'hold', skew_max interval DEFAULT '1 second',
  OUT outcome text, OUT fence bigint, OUT status integer, OUT content bytea,
  OUT since timestamptz, OUT cause text
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  now numeric := onlyonce._now();
  class CONSTANT text := CASE on_unknown WHEN 'retry' THEN 'transactional' END;
  claim_id CONSTANT bytea := decode(replace(gen_random_uuid()::text, '-', ''), 'hex');
  carried CONSTANT numeric := onlyonce._key_time(key);
  lasts CONSTANT numeric := onlyonce._span('lease', lease, 100, 86400000, '100 ms to a day');
  skew CONSTANT numeric := onlyonce._skew(skew_max);
  remembered numeric := 18446744073709551615;
  store onlyonce.store;
  wanted bytea;
  print bytea;
  done record;
  is_done boolean := false;
  is_locked boolean := false;
  stands onlyonce._record;
  stored record;
BEGIN
  store := onlyonce._store();
  IF remember IS NOT NULL THEN
    remembered := onlyonce._span('remember', remember, 0, remembered, 'positive, or NULL for ever');
  END IF;
  IF on_unknown IS NULL OR on_unknown NOT IN ('hold', 'retry') THEN
    PERFORM onlyonce._refuse('on_unknown is hold or retry', 'Mend the call.');
  ELSIF request IS NULL THEN
    PERFORM onlyonce._refuse('the request is missing', 'Give what must not change, or nothing: ''''.');
  ELSIF now + 300000 < carried THEN
    PERFORM onlyonce._refuse('the time of the key is more than five minutes ahead',
      'Make a key with the time as it is.');
  END IF;
  wanted := onlyonce._key_id(store.secret, scope, key);
  print := '\x01'::bytea || onlyonce._mac(
    onlyonce._mac(store.secret, 'derive', 'transaction request'), request);
  FOR attempt IN 1..32 LOOP
    EXIT WHEN is_done;
    -- A guess: right for every first request. Another transaction with the key is waited for.
    now := onlyonce._now();
    SELECT * INTO done FROM onlyonce._claim(now, 0, lasts, remembered, skew, class, NULL, print,
      claim_id, true, carried) c;
    IF onlyonce._put(wanted, NULL, done.r) THEN
      -- Read after it: a record that is missing may have been deleted just now, under a floor that
      -- was raised before; and the store may have been moved meanwhile.
      store := onlyonce._store();
      IF carried IS NOT NULL AND current_setting('transaction_isolation') NOT LIKE 'read %' THEN
        PERFORM onlyonce._floor_seen();
      END IF;
      IF coalesce(carried < store.floor, false) THEN
        DELETE FROM onlyonce.records t WHERE t.id = wanted;
        outcome := 'expired';
        RETURN;
      END IF;
      is_done := true;
      IF now + 100 < onlyonce._now() THEN
        -- It has waited, and counts from the end of that.
        now := onlyonce._now();
        stands := done.r;
        SELECT * INTO done FROM onlyonce._claim(now, 0, lasts, remembered, skew, class, NULL, print,
          claim_id, true, carried) c;
        is_done := onlyonce._put(wanted, stands.revision, done.r);
      END IF;
      CONTINUE;
    END IF;
    IF is_locked THEN
      SELECT t.revision, t.record INTO stored FROM onlyonce.records t WHERE t.id = wanted FOR UPDATE;
    ELSE
      SELECT t.revision, t.record INTO stored FROM onlyonce.records t WHERE t.id = wanted;
    END IF;
    CONTINUE WHEN stored.revision IS NULL;
    store := onlyonce._store();
    now := onlyonce._now();
    stands := onlyonce._read(wanted, stored.revision, stored.record);
    SELECT * INTO done FROM onlyonce._claim(now, store.floor, lasts, remembered, skew, class, stands,
      print, claim_id, true, carried) c;
    is_done := NOT done.changed;
    IF done.changed AND is_locked THEN
      is_done := onlyonce._put(wanted, stands.revision, done.r);
    END IF;
    -- What is to be changed is decided once nobody else can change it, by the time of then.
    is_locked := true;
  END LOOP;
  IF NOT is_done THEN
    RAISE EXCEPTION 'onlyonce: too many writers changed the record at once'
      USING ERRCODE = '40001', DETAIL = 'It did not happen.',
        HINT = 'Begin a new transaction and claim again with the same key.';
  END IF;
  outcome := done.outcome;
  stands := done.r;
  fence := CASE outcome WHEN 'granted' THEN stands.fence END;
  IF outcome IN ('replay', 'gone') THEN
    status := stands.status;
    content := stands.content;
    since := onlyonce._instant(stands.answered_at);
  ELSIF outcome = 'in-flight' THEN
    since := onlyonce._instant(stands.lease_until);
  ELSIF outcome = 'outcome-unknown' THEN
    since := onlyonce._instant(stands.since);
    cause := (ARRAY['lapsed', 'holder-died', 'abandoned', 'connection-lost', 'timed-out',
      'gateway-answer', 'answer-cut', 'restored'])[stands.cause];
  END IF;
END $$;

-- Says that the operation happened in this transaction. See docs/transaction.md.
CREATE OR REPLACE FUNCTION onlyonce.complete(
  scope text, key text, fence bigint, status integer, content bytea,
  retention interval DEFAULT '24 hours', skew_max interval DEFAULT '1 second'
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  kept_for CONSTANT numeric := onlyonce._span('retention', retention, 0, 3153600000000,
    'at most a hundred years');
  skew CONSTANT numeric := onlyonce._skew(skew_max);
  wanted bytea;
  kept bytea := content;
  stored record;
  stands onlyonce._record;
  done record;
BEGIN
  wanted := onlyonce._key_id((onlyonce._store()).secret, scope, key);
  IF fence IS NULL OR status IS NULL OR status NOT BETWEEN 0 AND 65535 THEN
    PERFORM onlyonce._refuse('fence and status (0 to 65535) must be given', 'Mend the call.');
  ELSIF 1048576 < octet_length(kept) THEN
    -- Its checksum would take long. It is recorded as answered, and not kept.
    kept := NULL;
  END IF;
  SELECT t.revision, t.record INTO stored FROM onlyonce.records t WHERE t.id = wanted FOR UPDATE;
  -- Nobody else can change it from here on: the store and the time are looked at after the wait.
  PERFORM onlyonce._store();
  IF stored.revision IS NOT NULL THEN
    stands := onlyonce._read(wanted, stored.revision, stored.record);
    SELECT * INTO done FROM onlyonce._complete(
      onlyonce._now(), kept_for, skew, stands, fence, status, kept) c;
    IF done.outcome = 'done' AND onlyonce._put(wanted, stands.revision, done.r) THEN
      -- What is told after the commit must not be lost.
      IF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
      END IF;
      RETURN;
    ELSIF done.outcome = 'done' THEN
      RAISE EXCEPTION 'onlyonce: another writer changed the record'
        USING ERRCODE = '40001', DETAIL = 'It did not happen.',
          HINT = 'Begin a new transaction and claim again with the same key.';
    END IF;
  END IF;
  RAISE EXCEPTION 'onlyonce: claim % does not count', fence
    USING ERRCODE = 'OO001',
      DETAIL = 'It did not happen in this transaction. Another claim of the key was granted, or it is answered.',
      HINT = 'Roll back, and claim again with the same key to be told.';
END $$;

-- Nobody may call them by default: GRANT EXECUTE ON FUNCTION onlyonce.claim, onlyonce.complete. What
-- the store itself writes by does no more than its caller may.
DO $$
DECLARE
  name regprocedure;
BEGIN
  FOR name IN SELECT p.oid::regprocedure FROM pg_proc p
    WHERE p.pronamespace = 'onlyonce'::regnamespace AND p.proname <> '_swap'
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name);
  END LOOP;
END $$;
