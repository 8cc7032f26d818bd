-- Procedures for any language: a claim and its completion in the caller's own transaction.
--
-- A database cannot ask the core, so this is what a claim and a completion do once more, as the
-- functions for PostgreSQL are. Every cell of the table that it can meet is compared with the
-- core's (tests/mysql/cells.rs), byte for byte. All are procedures: where there is a binary log,
-- functions may only be made by who has all rights. onlyonce__record stands for the type of
-- row.sql. What begins with onlyonce__ is for these files alone: it has the rights of its caller,
-- so that of a user's there are none. Each ends with a line of its own.

-- HMAC-SHA-256 (RFC 2104) under a key of 32 bytes, which are taken as four numbers.
CREATE OR REPLACE PROCEDURE onlyonce__mac(
  secret VARBINARY(32), said LONGBLOB, OUT mac VARBINARY(32)
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE word BIGINT UNSIGNED;
  DECLARE place INT DEFAULT 1;
  DECLARE inner_pad, outer_pad VARBINARY(64) DEFAULT '';
  WHILE place < 32 DO
    SET word = CAST(CONV(HEX(SUBSTRING(secret, place, 8)), 16, 10) AS UNSIGNED);
    SET inner_pad = CONCAT(inner_pad, UNHEX(LPAD(HEX(word ^ 3906369333256140342), 16, '0')));
    SET outer_pad = CONCAT(outer_pad, UNHEX(LPAD(HEX(word ^ 6655295901103053916), 16, '0')));
    SET place = place + 8;
  END WHILE;
  SET inner_pad = CONCAT(inner_pad, REPEAT(x'36', 32));
  SET outer_pad = CONCAT(outer_pad, REPEAT(x'5c', 32));
  SET mac = UNHEX(SHA2(CONCAT(outer_pad, UNHEX(SHA2(CONCAT(inner_pad, said), 256))), 256));
END;

-- Adds a number, LEB128.
CREATE OR REPLACE PROCEDURE onlyonce__put(amount DECIMAL(30), INOUT said LONGBLOB)
NO SQL SQL SECURITY INVOKER
BEGIN
  WHILE 128 <= amount DO
    SET said = CONCAT(said, CHAR(128 + amount % 128 USING binary));
    SET amount = amount DIV 128;
  END WHILE;
  SET said = CONCAT(said, CHAR(amount USING binary));
END;

-- Adds a time, as its distance from the revision: wrapping, and with the sign in the lowest bit.
CREATE OR REPLACE PROCEDURE onlyonce__put_time(
  base DECIMAL(30), millis DECIMAL(30), INOUT said LONGBLOB
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE distance DECIMAL(30) DEFAULT millis - base;
  IF 9223372036854775808 <= distance THEN
    SET distance = distance - 18446744073709551616;
  END IF;
  CALL onlyonce__put(IF(0 <= distance, 2 * distance, -2 * distance - 1), said);
END;

-- Reads a number from where `piece` begins; the place moves behind it.
CREATE OR REPLACE PROCEDURE onlyonce__take(
  piece VARBINARY(10), INOUT place INT, OUT amount DECIMAL(30)
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE octet INT;
  DECLARE step INT DEFAULT 0;
  DECLARE weight DECIMAL(30) DEFAULT 1;
  SET amount = 0;
  REPEAT
    SET step = step + 1;
    SET octet = ORD(SUBSTRING(piece, step, 1));
    SET amount = amount + (octet & 127) * weight;
    SET weight = weight * 128;
  UNTIL octet < 128 OR step = 10 END REPEAT;
  SET place = place + step;
END;

CREATE OR REPLACE PROCEDURE onlyonce__take_time(
  base DECIMAL(30), piece VARBINARY(10), INOUT place INT, OUT millis DECIMAL(30)
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE zigzag DECIMAL(30);
  CALL onlyonce__take(piece, place, zigzag);
  SET millis = base + IF(zigzag % 2 = 0, zigzag DIV 2, -(zigzag DIV 2) - 1);
  SET millis = (millis + 18446744073709551616) % 18446744073709551616;
END;

CREATE OR REPLACE PROCEDURE onlyonce__damaged(id VARBINARY(16), says TEXT)
NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE text_of_it TEXT DEFAULT CONCAT('onlyonce: it did not happen; the record of key ',
    LOWER(HEX(id)), ' must be looked at: ', says);
  SIGNAL SQLSTATE 'OO003' SET MESSAGE_TEXT = text_of_it;
END;

-- An entry of the history, apart: its time in 8 bytes, how long the rest is in 4, and the rest as
-- it is written.
CREATE OR REPLACE PROCEDURE onlyonce__add(
  millis DECIMAL(30), rest BLOB, INOUT r onlyonce__record
) NO SQL SQL SECURITY INVOKER
BEGIN
  SET r.h_count = COALESCE(r.h_count, 0) + 1;
  SET r.h_bytes = CONCAT(COALESCE(r.h_bytes, ''),
    UNHEX(LPAD(HEX(CAST(millis AS UNSIGNED)), 16, '0')),
    UNHEX(LPAD(HEX(OCTET_LENGTH(rest)), 8, '0')), rest);
END;

-- The record in a row. The formats are those of docs/record-format.md, 1 to 3.
CREATE OR REPLACE PROCEDURE onlyonce__read(
  id VARBINARY(16), of_row BIGINT, bytes_of_row LONGBLOB, OUT r onlyonce__record
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE said LONGBLOB;
  DECLARE place INT DEFAULT 20;
  DECLARE first_octet, flags, details, from_place, entries INT;
  DECLARE amount, millis DECIMAL(30);
  IF 1114112 < OCTET_LENGTH(bytes_of_row) THEN
    SIGNAL SQLSTATE '54000' SET MESSAGE_TEXT =
      'onlyonce: answered before, with more than 1 MiB; nothing happened now: ask by the Rust API';
  END IF;
  SET said = SUBSTRING(bytes_of_row, 5);
  IF OCTET_LENGTH(bytes_of_row) < 24
    OR LEFT(bytes_of_row, 4) <> REVERSE(UNHEX(LPAD(HEX(CRC32C(said)), 8, '0'))) THEN
    CALL onlyonce__damaged(id, 'its checksum is wrong');
  END IF;
  SET first_octet = ORD(LEFT(said, 1));
  IF first_octet >> 4 NOT BETWEEN 1 AND 3 THEN
    SIGNAL SQLSTATE '0A000' SET MESSAGE_TEXT =
      'onlyonce: a newer onlyonce wrote the record; it did not happen: `onlyonce store functions`';
  ELSEIF SUBSTRING(said, 4, 16) <> id THEN
    CALL onlyonce__damaged(id, 'it is that of another row');
  END IF;
  SET r.state = first_octet & 15;
  SET flags = ORD(SUBSTRING(said, 2, 1));
  SET details = ORD(SUBSTRING(said, 3, 1));
  CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
  IF amount <> of_row THEN
    CALL onlyonce__damaged(id, 'it is that of another row');
  END IF;
  SET r.revision = amount;
  CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
  SET r.fence = r.revision - amount;
  SET r.first_fence = r.fence;
  SET r.attempt = 1;
  SET r.runs_authorised = 0;
  SET r.rerun = flags & 64 <> 0;
  IF flags & 128 <> 0 THEN
    CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
    SET r.first_fence = r.fence - amount;
    CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
    SET r.attempt = amount;
    CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
    SET r.runs_authorised = amount;
  END IF;
  IF flags & 1 <> 0 THEN
    SET r.print = SUBSTRING(said, place, 33);
    SET place = place + 33;
  END IF;
  IF flags & 2 <> 0 THEN
    SET r.credential = SUBSTRING(said, place, 16);
    SET place = place + 16;
  END IF;
  IF flags & 4 <> 0 THEN
    CALL onlyonce__take_time(r.revision, SUBSTRING(said, place, 10), place, millis);
    SET r.first_commit_at = millis;
  END IF;
  IF flags & 8 <> 0 THEN
    CALL onlyonce__take_time(r.revision, SUBSTRING(said, place, 10), place, millis);
    SET r.key_time = millis;
  END IF;
  IF flags & 16 <> 0 THEN
    CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
    SET r.evidence = SUBSTRING(said, place, amount);
    SET place = place + amount;
  END IF;
  IF flags & 32 <> 0 THEN
    CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
    SET entries = amount;
    WHILE 0 < entries DO
      CALL onlyonce__take_time(r.revision, SUBSTRING(said, place, 10), place, millis);
      SET from_place = place;
      SET place = place + 1;
      CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
      CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
      SET place = place + amount;
      CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
      SET place = place + amount;
      CALL onlyonce__add(millis, SUBSTRING(said, from_place, place - from_place), r);
      SET entries = entries - 1;
    END WHILE;
  END IF;
  CALL onlyonce__read_state(said, place, details, r);
END;

CREATE OR REPLACE PROCEDURE onlyonce__read_state(
  said LONGBLOB, place INT, details INT, INOUT r onlyonce__record
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE amount, millis DECIMAL(30);
  SET r.sealed = details & 1 <> 0;
  SET r.kept = details & 2 <> 0;
  IF r.state = 1 THEN
    SET r.claim_id = SUBSTRING(said, place, 16);
    SET r.committing = details & 4 <> 0;
    -- Who holds it is of no use here.
    SET place = place + 48;
    CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
    SET place = place + IF(details & 32 <> 0, 4, 0);
    CALL onlyonce__take_time(r.revision, SUBSTRING(said, place, 10), place, millis);
    SET r.lease_until = millis;
  ELSEIF r.state IN (3, 5) THEN
    SET r.status = ORD(SUBSTRING(said, place, 1)) | (ORD(SUBSTRING(said, place + 1, 1)) << 8);
    SET place = place + 2;
    CALL onlyonce__take_time(r.revision, SUBSTRING(said, place, 10), place, millis);
    SET r.answered_at = millis;
  END IF;
  IF r.state = 2 THEN
    CALL onlyonce__take_time(r.revision, SUBSTRING(said, place, 10), place, millis);
    SET r.since = millis;
  ELSEIF r.state = 3 THEN
    CALL onlyonce__take_time(r.revision, SUBSTRING(said, place, 10), place, millis);
    SET r.retain_until = millis;
    IF r.kept THEN
      SET r.content = SUBSTRING(said, place);
    END IF;
  ELSEIF r.state = 5 THEN
    CALL onlyonce__take_time(r.revision, SUBSTRING(said, place, 10), place, millis);
    SET r.forget_at = millis;
    SET r.digest = SUBSTRING(said, place, 8);
  ELSEIF details & 8 <> 0 THEN
    CALL onlyonce__take_time(r.revision, SUBSTRING(said, place, 10), place, millis);
    SET r.since = millis;
    SET r.cause = ORD(SUBSTRING(said, place, 1));
    IF details & 16 <> 0 THEN
      SET place = place + 1;
      CALL onlyonce__take(SUBSTRING(said, place, 10), place, amount);
      SET r.only_fence = amount;
    END IF;
  END IF;
END;

-- What a row holds of a record: when time alone may end it, and its checksum and its bytes.
CREATE OR REPLACE PROCEDURE onlyonce__write(
  id VARBINARY(16), r onlyonce__record, OUT due_at BIGINT, OUT bytes_of_row LONGBLOB
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE base DECIMAL(30) DEFAULT r.revision;
  DECLARE is_first BOOLEAN DEFAULT
    r.attempt = 1 AND r.runs_authorised = 0 AND r.first_fence = r.fence;
  DECLARE version INT DEFAULT 1;
  DECLARE details, entries INT DEFAULT 0;
  DECLARE place INT DEFAULT 1;
  DECLARE len, event_of INT;
  DECLARE said LONGBLOB DEFAULT '';
  CALL onlyonce__put(base, said);
  CALL onlyonce__put(base - r.fence, said);
  IF NOT is_first THEN
    CALL onlyonce__put(r.fence - r.first_fence, said);
    CALL onlyonce__put(r.attempt, said);
    CALL onlyonce__put(r.runs_authorised, said);
  END IF;
  SET said = CONCAT(said, COALESCE(r.print, ''), COALESCE(r.credential, ''));
  IF r.first_commit_at IS NOT NULL THEN
    CALL onlyonce__put_time(base, r.first_commit_at, said);
  END IF;
  IF r.key_time IS NOT NULL THEN
    CALL onlyonce__put_time(base, r.key_time, said);
  END IF;
  IF r.evidence IS NOT NULL THEN
    CALL onlyonce__put(OCTET_LENGTH(r.evidence), said);
    SET said = CONCAT(said, r.evidence);
  END IF;
  IF r.h_count IS NOT NULL THEN
    CALL onlyonce__put(r.h_count, said);
    WHILE entries < r.h_count DO
      CALL onlyonce__put_time(base, CONV(HEX(SUBSTRING(r.h_bytes, place, 8)), 16, 10), said);
      SET len = CONV(HEX(SUBSTRING(r.h_bytes, place + 8, 4)), 16, 10);
      SET said = CONCAT(said, SUBSTRING(r.h_bytes, place + 12, len));
      SET event_of = ORD(SUBSTRING(r.h_bytes, place + 12, 1));
      SET version = GREATEST(version, CASE event_of WHEN 10 THEN 3 WHEN 9 THEN 2 ELSE 1 END);
      SET place = place + 12 + len;
      SET entries = entries + 1;
    END WHILE;
  END IF;
  IF r.state = 1 THEN
    -- Nobody in particular holds it.
    SET said = CONCAT(said, r.claim_id, REPEAT(x'00', 33));
    CALL onlyonce__put_time(base, r.lease_until, said);
    SET details = IF(r.committing, 4, 0);
  ELSEIF r.state = 2 THEN
    CALL onlyonce__put_time(base, r.since, said);
  ELSEIF r.state IN (3, 5) THEN
    SET said = CONCAT(said, CHAR(r.status & 255 USING binary), CHAR(r.status >> 8 USING binary));
    CALL onlyonce__put_time(base, r.answered_at, said);
    CALL onlyonce__put_time(base, IF(r.state = 3, r.retain_until, r.forget_at), said);
    SET said = CONCAT(said, IF(r.state = 3, COALESCE(r.content, ''), r.digest));
    SET details = r.sealed | IF(r.state = 3 AND r.kept, 2, 0);
  END IF;
  IF r.state IN (1, 4) AND r.since IS NOT NULL THEN
    CALL onlyonce__put_time(base, r.since, said);
    SET said = CONCAT(said, CHAR(r.cause USING binary));
    SET details = details | 8;
    IF r.only_fence IS NOT NULL THEN
      CALL onlyonce__put(r.only_fence, said);
      SET details = details | 16;
    END IF;
  END IF;
  SET said = CONCAT(
    CHAR(version << 4 | r.state USING binary),
    CHAR((r.print IS NOT NULL) | ((r.credential IS NOT NULL) << 1)
      | ((r.first_commit_at IS NOT NULL) << 2) | ((r.key_time IS NOT NULL) << 3)
      | ((r.evidence IS NOT NULL) << 4) | ((r.h_count IS NOT NULL) << 5)
      | (r.rerun << 6) | ((NOT is_first) << 7) USING binary),
    CHAR(details USING binary), id, said);
  SET bytes_of_row = CONCAT(REVERSE(UNHEX(LPAD(HEX(CRC32C(said)), 8, '0'))), said);
  SET due_at = LEAST(9223372036854775807, CASE r.state WHEN 1 THEN r.lease_until
    WHEN 3 THEN r.retain_until WHEN 5 THEN r.forget_at ELSE r.since END);
  IF bytes_of_row IS NULL OR due_at IS NULL THEN
    -- A part was missing, or it is more than the server takes at once.
    CALL onlyonce__damaged(id, 'it cannot be written');
  END IF;
END;
