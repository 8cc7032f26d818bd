-- What time, a claim and a completion make of a record. States are 1 in flight, 2 released,
-- 3 completed, 4 unknown, 5 tombstone; what a state does not have is NULL.

-- An entry more in the history. When full, the second oldest goes.
CREATE OR REPLACE PROCEDURE onlyonce__enter(
  now_is DECIMAL(30), event_of INT, fence DECIMAL(30), who VARCHAR(64), why VARCHAR(64),
  INOUT r onlyonce__record
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE rest LONGBLOB DEFAULT CHAR(event_of USING binary);
  DECLARE one, two INT;
  IF r.h_count = 16 THEN
    SET one = 12 + CONV(HEX(SUBSTRING(r.h_bytes, 9, 4)), 16, 10);
    SET two = 12 + CONV(HEX(SUBSTRING(r.h_bytes, one + 9, 4)), 16, 10);
    SET r.h_bytes = CONCAT(LEFT(r.h_bytes, one), SUBSTRING(r.h_bytes, one + two + 1));
    SET r.h_count = 15;
  END IF;
  CALL onlyonce__put(fence, rest);
  CALL onlyonce__put(OCTET_LENGTH(who), rest);
  SET rest = CONCAT(rest, who);
  CALL onlyonce__put(OCTET_LENGTH(why), rest);
  CALL onlyonce__add(now_is, CONCAT(rest, why), r);
END;

-- What a record has become by now with nobody acting on it. Times that are added to end at the
-- last one that can be named.
CREATE OR REPLACE PROCEDURE onlyonce__settle(
  now_is DECIMAL(30), remember DECIMAL(30), skew DECIMAL(30), INOUT r onlyonce__record
) NO SQL SQL SECURITY INVOKER
BEGIN
  IF r.state = 1 AND LEAST(r.lease_until + skew, 18446744073709551615) <= now_is THEN
    IF r.committing AND r.since IS NULL THEN
      SET r.state = 4;
      SET r.since = r.lease_until;
      SET r.cause = 1;
      SET r.only_fence = r.fence;
    ELSEIF r.committing THEN
      SET r.state = 4;
      SET r.only_fence = NULL;
    ELSEIF r.since IS NULL THEN
      SET r.state = 2;
      SET r.since = r.lease_until;
    ELSE
      SET r.state = 4;
    END IF;
    SET r.claim_id = NULL;
    SET r.lease_until = NULL;
    SET r.committing = NULL;
  ELSEIF r.state = 3 AND r.retain_until <= now_is THEN
    SET r.state = 5;
    SET r.forget_at =
      GREATEST(LEAST(r.answered_at + remember, 18446744073709551615), r.retain_until);
    SET r.digest = LEFT(UNHEX(SHA2(CONCAT(CHAR(r.status >> 8 USING binary),
      CHAR(r.status & 255 USING binary), CHAR(r.kept USING binary), COALESCE(r.content, '')),
      256)), 8);
    SET r.first_commit_at = NULL;
    SET r.retain_until = NULL;
    SET r.content = NULL;
    SET r.kept = FALSE;
  END IF;
END;

-- What a claim makes of a record, whose revision is NULL if there is none. `class` says what the
-- receiver offers if an unknown outcome is to be run again, and is NULL if it is to be held.
-- `changed` tells whether `r` is to be written.
CREATE OR REPLACE PROCEDURE onlyonce__claimed(
  now_is DECIMAL(30), floor_is DECIMAL(30), lease DECIMAL(30), remember DECIMAL(30),
  skew DECIMAL(30), class VARCHAR(32), stands onlyonce__record, print VARBINARY(33),
  claim_id VARBINARY(16), is_committing BOOLEAN, carried DECIMAL(30),
  OUT outcome VARCHAR(16), OUT changed BOOLEAN, OUT r onlyonce__record
) NO SQL SQL SECURITY INVOKER
BEGIN
  DECLARE below_floor BOOLEAN DEFAULT COALESCE(carried < floor_is, FALSE);
  DECLARE is_granted BOOLEAN DEFAULT FALSE;
  IF stands.revision IS NULL AND below_floor THEN
    SET outcome = 'expired';
  ELSEIF stands.revision IS NULL THEN
    SET r.attempt = 0;
    SET r.runs_authorised = 0;
    SET r.rerun = FALSE;
    SET r.key_time = carried;
    SET is_granted = TRUE;
  ELSE
    SET r = stands;
    CALL onlyonce__settle(now_is, remember, skew, r);
    SET below_floor = below_floor OR COALESCE(r.key_time < floor_is, FALSE);
    IF r.print <> print AND NOT (r.state IN (3, 5) AND r.sealed) THEN
      SET outcome = 'mismatch';
    ELSEIF r.state = 1 THEN
      SET outcome = IF(r.claim_id = claim_id, 'granted', 'in-flight');
    ELSEIF r.state = 2 AND below_floor THEN
      SET outcome = 'expired';
    ELSEIF r.state = 2 THEN
      SET is_granted = TRUE;
      SET r.since = NULL;
    ELSEIF r.state = 3 THEN
      SET outcome = IF(r.kept, 'replay', 'gone');
    ELSEIF r.state = 4 AND class IS NOT NULL AND NOT below_floor THEN
      SET is_granted = TRUE;
      SET r.runs_authorised = LEAST(r.runs_authorised + 1, 4294967295);
      CALL onlyonce__enter(now_is, 4, r.fence, 'policy', CONCAT('the receiver is ', class), r);
    ELSEIF r.state = 4 THEN
      SET outcome = 'outcome-unknown';
    ELSE
      SET outcome =
        IF(r.forget_at <= now_is AND r.key_time IS NOT NULL, 'expired', 'gone');
    END IF;
  END IF;
  SET changed = is_granted OR COALESCE(r.state <> stands.state, FALSE);
  IF is_granted THEN
    SET outcome = 'granted';
    SET r.state = 1;
    SET r.print = print;
    SET r.credential = NULL;
    SET r.evidence = NULL;
    SET r.attempt = LEAST(r.attempt + 1, 4294967295);
    SET r.first_commit_at = IF(is_committing, COALESCE(r.first_commit_at, now_is), r.first_commit_at);
    SET r.claim_id = claim_id;
    SET r.committing = is_committing;
    SET r.lease_until = LEAST(now_is + lease, 18446744073709551615);
  END IF;
  IF changed THEN
    SET r.revision = GREATEST(COALESCE(stands.revision, 0) + 1, now_is);
  END IF;
  IF is_granted THEN
    SET r.fence = r.revision;
    SET r.first_fence = COALESCE(r.first_fence, r.revision);
  END IF;
END;

-- What a completion makes of a record in the transaction that it commits with; the latest claim
-- alone completes, and once. `r` is to be written if the outcome is done.
CREATE OR REPLACE PROCEDURE onlyonce__completed(
  now_is DECIMAL(30), retention DECIMAL(30), skew DECIMAL(30), stands onlyonce__record,
  fence DECIMAL(30), status INT, content LONGBLOB, OUT outcome VARCHAR(16), OUT r onlyonce__record
) NO SQL SQL SECURITY INVOKER
BEGIN
  IF stands.fence < fence THEN
    SET outcome = 'invalid-fence';
  ELSEIF stands.state NOT IN (1, 4) OR stands.fence <> fence THEN
    SET outcome = 'fenced';
  ELSE
    SET outcome = 'done';
    SET r = stands;
    -- Neither state has anything to remember yet.
    CALL onlyonce__settle(now_is, 0, skew, r);
    IF r.state <> 1 THEN
      CALL onlyonce__enter(now_is, 5, fence, 'holder', '', r);
    END IF;
    SET r.state = 3;
    SET r.claim_id = NULL;
    SET r.lease_until = NULL;
    SET r.committing = NULL;
    SET r.since = NULL;
    SET r.cause = NULL;
    SET r.only_fence = NULL;
    SET r.status = status;
    SET r.content = content;
    SET r.kept = content IS NOT NULL;
    SET r.answered_at = now_is;
    SET r.retain_until = LEAST(now_is + retention, 18446744073709551615);
    SET r.sealed = FALSE;
    SET r.revision = GREATEST(stands.revision + 1, now_is);
  END IF;
END;
