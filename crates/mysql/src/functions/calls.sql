-- What callers call. Values are said by their places; what may be left out is in `opts`, an
-- object of JSON, or NULL. Times are in milliseconds.

CREATE OR REPLACE PROCEDURE onlyonce__refuse(says TEXT) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE text_of_it TEXT DEFAULT CONCAT('onlyonce: it did not happen, mend the call: ', says);
  SIGNAL SQLSTATE '22023' SET MESSAGE_TEXT = text_of_it;
END;

-- Refuses what is no object with these names alone: `known` are written ,one,two,
CREATE OR REPLACE PROCEDURE onlyonce__options(
  INOUT opts LONGTEXT CHARACTER SET utf8mb4, known VARCHAR(64) CHARACTER SET utf8mb4
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE said, name LONGTEXT CHARACTER SET utf8mb4;
  DECLARE place INT DEFAULT 0;
  SET opts = COALESCE(opts, '{}');
  IF NOT JSON_VALID(opts) OR JSON_TYPE(opts) <> 'OBJECT' THEN
    CALL onlyonce__refuse('options must be an object of JSON, or NULL');
  END IF;
  SET said = JSON_KEYS(opts);
  WHILE place < JSON_LENGTH(said) DO
    SET name = JSON_VALUE(said, CONCAT('$[', place, ']'));
    -- As bytes: for many a collation `Lease` is `lease`, which it is not for JSON.
    IF COALESCE(LOCATE(CAST(CONCAT(',', name, ',') AS BINARY), CAST(known AS BINARY)), 0) = 0
      OR LOCATE(',', name) <> 0 THEN
      CALL onlyonce__refuse(CONCAT('options are', known, ' and one is another'));
    END IF;
    SET place = place + 1;
  END WHILE;
END;

-- One of them in milliseconds, within the bounds that the core has.
CREATE OR REPLACE PROCEDURE onlyonce__span(
  opts LONGTEXT CHARACTER SET utf8mb4, name VARCHAR(16), low DECIMAL(30), high DECIMAL(30),
  bounds VARCHAR(64), INOUT millis DECIMAL(30)
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE said LONGTEXT CHARACTER SET utf8mb4 DEFAULT JSON_EXTRACT(opts, CONCAT('$.', name));
  IF said IS NOT NULL THEN
    IF JSON_TYPE(said) <> 'INTEGER' OR said NOT REGEXP '^-?[0-9]{1,20}$' THEN
      CALL onlyonce__refuse(CONCAT(name, ' must be a number of milliseconds, ', bounds));
    END IF;
    SET millis = said;
    IF millis < low OR high < millis THEN
      CALL onlyonce__refuse(CONCAT(name, ' must be ', bounds));
    END IF;
  END IF;
END;

-- The server's clock, at the moment of the question.
CREATE OR REPLACE PROCEDURE onlyonce__now(OUT now_is DECIMAL(30)) NO SQL SQL SECURITY INVOKER
BEGIN
  -- By whatever time zone the caller's session has, an hour of each year is told twice.
  SET STATEMENT time_zone = '+00:00' FOR
    SELECT FLOOR(UNIX_TIMESTAMP(SYSDATE(3)) * 1000) INTO now_is;
END;

-- Scope and key as the store finds their record.
CREATE OR REPLACE PROCEDURE onlyonce__key_id(
  secret VARBINARY(32), scope LONGTEXT CHARACTER SET utf8mb4, name LONGTEXT CHARACTER SET utf8mb4,
  OUT id VARBINARY(16)
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE whose, of_key LONGBLOB;
  DECLARE mac VARBINARY(32);
  SET whose = CAST(scope AS BINARY);
  SET of_key = CAST(name AS BINARY);
  IF whose IS NULL OR 1024 < OCTET_LENGTH(whose) THEN
    CALL onlyonce__refuse('the scope must have at most 1024 bytes');
  ELSEIF of_key IS NULL OR of_key NOT REGEXP '^[ -~]{1,255}\\z' OR of_key NOT REGEXP '[!-~]' THEN
    CALL onlyonce__refuse('the key must be 1 to 255 bytes of printable ASCII');
  END IF;
  CALL onlyonce__mac(secret, CONCAT(UNHEX(LPAD(HEX(OCTET_LENGTH(whose)), 8, '0')), whose,
    UNHEX(LPAD(HEX(OCTET_LENGTH(of_key)), 8, '0')), of_key), mac);
  SET id = LEFT(mac, 16);
END;

-- The store, if it may be used. Who begins after it was marked as moved sees the mark. That no
-- claim of before is committed later no look can tell, also not the one after a record was made,
-- which under REPEATABLE READ shows the snapshot: whoever moves a store has ended all transactions.
-- A lock on a mark that is not there would keep others from making records beside it.
CREATE OR REPLACE PROCEDURE onlyonce__store(OUT secret VARBINARY(32), OUT floor_is DECIMAL(30))
READS SQL DATA SQL SECURITY INVOKER
BEGIN
  DECLARE version INT;
  SELECT s.version, s.secret, s.floor INTO version, secret, floor_is FROM onlyonce_store s;
  IF version <> 2 THEN
    CALL onlyonce__refuse('a newer onlyonce has made the store: install its procedures');
  ELSEIF EXISTS (SELECT 1 FROM onlyonce_records t WHERE t.id = 'onlyonce''s mark!') THEN
    CALL onlyonce__refuse('the store was moved, or is being moved or put back into use');
  ELSEIF EXISTS (SELECT 1 FROM onlyonce_records t WHERE t.id = 'onlyonce''s keys!') THEN
    CALL onlyonce__refuse('answers in this store are encrypted: use another store');
  END IF;
END;

-- Writes a number into a row that no other transaction has locked, of those that are for this:
-- the largest revision, and that something was written. Where nothing is synced before others see
-- it, whoever is told of a record so commits after it.
CREATE OR REPLACE PROCEDURE onlyonce__note(noted DECIMAL(30)) MODIFIES SQL DATA
SQL SECURITY INVOKER
BEGIN
  DECLARE free INT;
  SELECT v.slot INTO free FROM onlyonce_revisions v WHERE v.slot < 0 LIMIT 1
    FOR UPDATE SKIP LOCKED;
  -- All are in use: one is waited for.
  SET free = COALESCE(free, -1 - CONNECTION_ID() % 128);
  UPDATE onlyonce_revisions v SET v.revision = GREATEST(v.revision, noted), v.syncs = v.syncs + 1
    WHERE v.slot = free;
  IF ROW_COUNT() <> 1 THEN
    CALL onlyonce__refuse('rows of onlyonce_revisions are missing: `onlyonce store functions`');
  END IF;
END;

-- Writes a record and notes its revision; `done` is false if another one stands there by now.
CREATE OR REPLACE PROCEDURE onlyonce__swap(
  id VARBINARY(16), expected DECIMAL(30), r onlyonce__record, OUT done BOOLEAN
) MODIFIES SQL DATA SQL SECURITY INVOKER
BEGIN
  DECLARE until_when BIGINT;
  DECLARE said LONGBLOB;
  CALL onlyonce__write(id, r, until_when, said);
  IF expected IS NULL THEN
    INSERT INTO onlyonce_records (id, revision, state, due_at, record)
      VALUES (id, r.revision, r.state, until_when, said) ON DUPLICATE KEY UPDATE id = id;
    -- How many rows that counts as is told by the client's own settings.
    SELECT t.record = said INTO done FROM onlyonce_records t WHERE t.id = id FOR UPDATE;
  ELSE
    UPDATE onlyonce_records t SET t.revision = r.revision, t.state = r.state,
      t.due_at = until_when, t.record = said WHERE t.id = id AND t.revision = expected;
    SET done = ROW_COUNT() = 1;
  END IF;
  IF done THEN
    CALL onlyonce__note(r.revision);
  END IF;
END;

-- A statement after another is of the same transaction, and the server keeps what was committed.
CREATE OR REPLACE PROCEDURE onlyonce__inside() NO SQL SQL SECURITY INVOKER
BEGIN
  IF @@session.autocommit AND NOT @@session.in_transaction THEN
    CALL onlyonce__refuse('there is no transaction: START TRANSACTION comes first');
  ELSEIF @@global.innodb_flush_log_at_trx_commit NOT IN (1, 3) THEN
    CALL onlyonce__refuse('innodb_flush_log_at_trx_commit must be 1 or 3');
  ELSEIF @@global.log_bin AND @@global.sync_binlog <> 1 THEN
    CALL onlyonce__refuse('sync_binlog must be 1');
  END IF;
END;

-- Asks to be the only one who runs the operation, in this transaction. See docs/transaction.md.
CREATE OR REPLACE PROCEDURE onlyonce_claim(
  scope LONGTEXT CHARACTER SET utf8mb4, name LONGTEXT CHARACTER SET utf8mb4, request LONGBLOB,
  opts LONGTEXT CHARACTER SET utf8mb4,
  OUT outcome VARCHAR(16), OUT fence BIGINT, OUT status INT, OUT content LONGBLOB,
  OUT since BIGINT, OUT cause VARCHAR(16)
) MODIFIES SQL DATA SQL SECURITY DEFINER
BEGIN
  DECLARE now_is, begun, carried, floor_is DECIMAL(30);
  DECLARE lease DECIMAL(30) DEFAULT 30000;
  DECLARE remember DECIMAL(30) DEFAULT 2592000000;
  DECLARE skew DECIMAL(30) DEFAULT 1000;
  DECLARE on_unknown LONGTEXT CHARACTER SET utf8mb4;
  DECLARE class VARCHAR(32);
  DECLARE secret, mac VARBINARY(32);
  DECLARE print VARBINARY(33);
  DECLARE wanted, claim_id VARBINARY(16);
  DECLARE tries INT DEFAULT 0;
  DECLARE of_row BIGINT;
  DECLARE bytes_of_row LONGBLOB;
  DECLARE state_of_row INT;
  DECLARE changed, done, is_shared, is_locked BOOLEAN DEFAULT FALSE;
  DECLARE nothing, stands, r onlyonce__record;
  CALL onlyonce__inside();
  CALL onlyonce__options(opts, ',lease,remember,on_unknown,skew_max,');
  CALL onlyonce__span(opts, 'lease', 100, 86400000, '100 ms to a day', lease);
  CALL onlyonce__span(opts, 'skew_max', 0, 3600000, 'at most an hour', skew);
  IF JSON_TYPE(JSON_EXTRACT(opts, '$.remember')) = 'NULL' THEN
    SET remember = 18446744073709551615;
  ELSE
    CALL onlyonce__span(opts, 'remember', 0, 18446744073709551615, 'positive, or null for ever',
      remember);
  END IF;
  SET on_unknown = COALESCE(JSON_EXTRACT(opts, '$.on_unknown'), '"hold"');
  IF on_unknown NOT IN ('"hold"', '"retry"') THEN
    CALL onlyonce__refuse('on_unknown is hold or retry');
  ELSEIF request IS NULL THEN
    CALL onlyonce__refuse('the request is missing: give what must not change, or nothing');
  END IF;
  SET class = IF(on_unknown = '"retry"', 'transactional', NULL);
  CALL onlyonce__store(secret, floor_is);
  CALL onlyonce__key_id(secret, scope, name, wanted);
  -- The time that a UUIDv7 carries (RFC 9562 section 5.7).
  IF CAST(LOWER(name) AS BINARY)
    REGEXP '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\\z' THEN
    SET carried = CONV(REPLACE(LEFT(name, 13), '-', ''), 16, 10);
  END IF;
  CALL onlyonce__now(begun);
  IF begun + 300000 < carried THEN
    CALL onlyonce__refuse('the time of the key is more than five minutes ahead');
  END IF;
  SET claim_id = RANDOM_BYTES(16);
  CALL onlyonce__mac(secret, CONCAT(x'00000006', 'derive', x'00000013', 'transaction request'), mac);
  CALL onlyonce__mac(mac, CONCAT(UNHEX(LPAD(HEX(OCTET_LENGTH(request)), 8, '0')), request), mac);
  SET print = CONCAT(x'01', mac);
  trying: WHILE tries < 32 DO
    SET tries = tries + 1;
    SET bytes_of_row = NULL;
    IF is_locked THEN
      SELECT t.revision, t.record INTO of_row, bytes_of_row FROM onlyonce_records t
        WHERE t.id = wanted FOR UPDATE;
    ELSEIF is_shared THEN
      SELECT t.revision, t.record INTO of_row, bytes_of_row FROM onlyonce_records t
        WHERE t.id = wanted LOCK IN SHARE MODE;
    ELSE
      SELECT t.revision, t.record, t.state INTO of_row, bytes_of_row, state_of_row
        FROM onlyonce_records t WHERE t.id = wanted;
      IF bytes_of_row IS NOT NULL AND state_of_row IN (3, 5) THEN
        -- Nothing else is told to have happened: under READ UNCOMMITTED it may be that it is yet
        -- taken back. What is in flight is not locked, since its end would wait.
        SET is_shared = TRUE;
        ITERATE trying;
      END IF;
    END IF;
    CALL onlyonce__now(now_is);
    IF bytes_of_row IS NULL THEN
      -- A guess: right for every first request. Another transaction with the key is waited for.
      SET begun = now_is;
      CALL onlyonce__claimed(now_is, 0, lease, remember, skew, class, nothing, print, claim_id,
        TRUE, carried, outcome, changed, r);
      CALL onlyonce__swap(wanted, NULL, r, done);
      SET is_locked = TRUE;
      IF NOT done THEN
        ITERATE trying;
      END IF;
      -- Looked at after it: a record that is missing may have been deleted just now, under a floor
      -- that was raised before.
      CALL onlyonce__store(secret, floor_is);
      CALL onlyonce__now(now_is);
      IF carried < now_is - 30000 THEN
        -- The snapshot of a transaction may be older than the floor; what is locked is not. A
        -- sweeper deletes a minute after it has raised the floor, and never above its time: so a
        -- key that is younger than half of that has lost no record.
        SELECT s.floor INTO floor_is FROM onlyonce_store s LOCK IN SHARE MODE;
      END IF;
      IF carried < floor_is THEN
        DELETE FROM onlyonce_records WHERE id = wanted;
        SET outcome = 'expired';
        LEAVE trying;
      END IF;
      IF begun + 100 < now_is THEN
        -- It has waited, and counts from the end of that.
        SET stands = r;
        CALL onlyonce__claimed(now_is, 0, lease, remember, skew, class, nothing, print, claim_id,
          TRUE, carried, outcome, changed, r);
        CALL onlyonce__swap(wanted, stands.revision, r, done);
      END IF;
      LEAVE trying;
    END IF;
    CALL onlyonce__store(secret, floor_is);
    CALL onlyonce__read(wanted, of_row, bytes_of_row, stands);
    CALL onlyonce__claimed(now_is, floor_is, lease, remember, skew, class, stands, print, claim_id,
      TRUE, carried, outcome, changed, r);
    SET done = NOT changed;
    IF NOT changed AND NOT @@global.log_bin THEN
      CALL onlyonce__note(0);
    ELSEIF changed AND is_locked THEN
      CALL onlyonce__swap(wanted, stands.revision, r, done);
    END IF;
    IF done THEN
      LEAVE trying;
    END IF;
    -- What is to be changed is decided once nobody else can change it, by the time of then.
    SET is_locked = TRUE;
  END WHILE;
  IF outcome <> 'expired' AND NOT done THEN
    SIGNAL SQLSTATE '40001' SET MESSAGE_TEXT =
      'onlyonce: it did not happen; roll back, and claim again with the same key: too many writers';
  END IF;
  IF outcome = 'granted' THEN
    SET fence = r.fence;
  ELSEIF outcome IN ('replay', 'gone') THEN
    SET status = r.status;
    SET content = r.content;
    SET since = r.answered_at;
  ELSEIF outcome = 'in-flight' THEN
    SET since = LEAST(r.lease_until, 9223372036854775807);
  ELSEIF outcome = 'outcome-unknown' THEN
    SET since = LEAST(r.since, 9223372036854775807);
    SET cause = ELT(r.cause, 'lapsed', 'holder-died', 'abandoned', 'connection-lost', 'timed-out',
      'gateway-answer', 'answer-cut', 'restored');
  END IF;
END;

-- Says that the operation happened in this transaction. See docs/transaction.md.
CREATE OR REPLACE PROCEDURE onlyonce_complete(
  scope LONGTEXT CHARACTER SET utf8mb4, name LONGTEXT CHARACTER SET utf8mb4, fence BIGINT,
  status INT, content LONGBLOB, opts LONGTEXT CHARACTER SET utf8mb4
) MODIFIES SQL DATA SQL SECURITY DEFINER
BEGIN
  DECLARE now_is, floor_is DECIMAL(30);
  DECLARE retention DECIMAL(30) DEFAULT 86400000;
  DECLARE skew DECIMAL(30) DEFAULT 1000;
  DECLARE secret VARBINARY(32);
  DECLARE wanted VARBINARY(16);
  DECLARE of_row BIGINT;
  DECLARE bytes_of_row LONGBLOB;
  DECLARE outcome VARCHAR(16);
  DECLARE done BOOLEAN DEFAULT FALSE;
  DECLARE stands, r onlyonce__record;
  CALL onlyonce__inside();
  CALL onlyonce__options(opts, ',retention,skew_max,');
  CALL onlyonce__span(opts, 'retention', 0, 3153600000000, 'at most a hundred years', retention);
  CALL onlyonce__span(opts, 'skew_max', 0, 3600000, 'at most an hour', skew);
  IF fence IS NULL OR status IS NULL OR status NOT BETWEEN 0 AND 65535 THEN
    CALL onlyonce__refuse('fence and status (0 to 65535) must be given');
  END IF;
  CALL onlyonce__store(secret, floor_is);
  CALL onlyonce__key_id(secret, scope, name, wanted);
  SELECT t.revision, t.record INTO of_row, bytes_of_row FROM onlyonce_records t
    WHERE t.id = wanted FOR UPDATE;
  -- Nobody else can change it from here on: the store and the time are looked at after the wait.
  CALL onlyonce__store(secret, floor_is);
  CALL onlyonce__now(now_is);
  IF bytes_of_row IS NOT NULL THEN
    CALL onlyonce__read(wanted, of_row, bytes_of_row, stands);
    -- A larger answer is recorded as given, and not kept.
    CALL onlyonce__completed(now_is, retention, skew, stands, fence, status,
      IF(1048576 < OCTET_LENGTH(content), NULL, content), outcome, r);
    IF outcome = 'done' THEN
      CALL onlyonce__swap(wanted, stands.revision, r, done);
    END IF;
  END IF;
  IF NOT done THEN
    SIGNAL SQLSTATE 'OO001' SET MESSAGE_TEXT =
      'onlyonce: it did not happen in this transaction; roll back, and ask again: not the latest claim';
  END IF;
END;
