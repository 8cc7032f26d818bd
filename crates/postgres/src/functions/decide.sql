-- What time, a claim and a completion make of a record.

-- When time alone may end it.
CREATE OR REPLACE FUNCTION onlyonce._due_at(r onlyonce._record) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
  SELECT least(9223372036854775807, CASE r.state WHEN 1 THEN r.lease_until WHEN 3 THEN r.retain_until
    WHEN 5 THEN r.forget_at ELSE r.since END)::bigint
$$;

-- Times that are added to end at the last one that can be named.
CREATE OR REPLACE FUNCTION onlyonce._plus(millis numeric, more numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$ SELECT least(millis + more, 18446744073709551615) $$;

-- An entry more in the history. When full, the second oldest goes.
CREATE OR REPLACE FUNCTION onlyonce._enter(
  r onlyonce._record, now numeric, event integer, fence numeric, who text, why text
) RETURNS onlyonce._record LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF cardinality(r.h_at) = 16 THEN
    r.h_at := r.h_at[1:1] || r.h_at[3:];
    r.h_event := r.h_event[1:1] || r.h_event[3:];
    r.h_fence := r.h_fence[1:1] || r.h_fence[3:];
    r.h_by := r.h_by[1:1] || r.h_by[3:];
    r.h_why := r.h_why[1:1] || r.h_why[3:];
  END IF;
  r.h_at := r.h_at || now;
  r.h_event := r.h_event || event;
  r.h_fence := r.h_fence || fence;
  r.h_by := r.h_by || convert_to(who, 'UTF8');
  r.h_why := r.h_why || convert_to(why, 'UTF8');
  RETURN r;
END $$;

-- What a record has become by now with nobody acting on it.
CREATE OR REPLACE FUNCTION onlyonce._settle(
  r onlyonce._record, now numeric, remember numeric, skew numeric
) RETURNS onlyonce._record LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF r.state = 1 AND onlyonce._plus(r.lease_until, skew) <= now THEN
    IF r.committing AND r.since IS NULL THEN
      r.state := 4;
      r.since := r.lease_until;
      r.cause := 1;
      r.only_fence := r.fence;
    ELSIF r.committing THEN
      r.state := 4;
      r.only_fence := NULL;
    ELSIF r.since IS NULL THEN
      r.state := 2;
      r.since := r.lease_until;
    ELSE
      r.state := 4;
    END IF;
    r.claim_id := NULL;
    r.lease_until := NULL;
    r.committing := NULL;
  ELSIF r.state = 3 AND r.retain_until <= now THEN
    r.state := 5;
    r.forget_at := greatest(onlyonce._plus(r.answered_at, remember), r.retain_until);
    r.digest := substring(sha256(onlyonce._byte(r.status >> 8) || onlyonce._byte(r.status & 255)
      || onlyonce._byte(r.kept::integer) || coalesce(r.content, '')) FOR 8);
    r.first_commit_at := NULL;
    r.retain_until := NULL;
    r.content := NULL;
    r.kept := false;
  END IF;
  RETURN r;
END $$;

-- What a claim makes of a record, NULL for none. `class` says what the receiver offers if an
-- unknown outcome is to be run again, and is NULL if it is to be held. `changed` tells whether `r`
-- is to be written.
CREATE OR REPLACE FUNCTION onlyonce._claim(
  now numeric, floor numeric, lease numeric, remember numeric, skew numeric, class text,
  stands onlyonce._record, fingerprint bytea, claim_id bytea, is_committing boolean,
  key_time numeric, OUT outcome text, OUT changed boolean, OUT r onlyonce._record
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  below_floor boolean := coalesce(key_time < floor, false);
  is_granted boolean := false;
BEGIN
  changed := false;
  IF stands.revision IS NULL THEN
    IF below_floor THEN
      outcome := 'expired';
      RETURN;
    END IF;
    r.attempt := 0;
    r.runs_authorised := 0;
    r.rerun := false;
    r.key_time := key_time;
    is_granted := true;
  ELSE
    r := onlyonce._settle(stands, now, remember, skew);
    below_floor := below_floor OR coalesce(r.key_time < floor, false);
    IF r.fingerprint <> fingerprint AND NOT (r.state IN (3, 5) AND r.sealed) THEN
      outcome := 'mismatch';
    ELSIF r.state = 1 AND r.claim_id = claim_id THEN
      outcome := 'granted';
    ELSIF r.state = 1 THEN
      outcome := 'in-flight';
    ELSIF r.state = 2 AND below_floor THEN
      outcome := 'expired';
    ELSIF r.state = 2 THEN
      is_granted := true;
      r.since := NULL;
    ELSIF r.state = 3 THEN
      outcome := CASE WHEN r.kept THEN 'replay' ELSE 'gone' END;
    ELSIF r.state = 4 AND class IS NOT NULL AND NOT below_floor THEN
      is_granted := true;
      r.runs_authorised := least(r.runs_authorised + 1, 4294967295);
      r := onlyonce._enter(r, now, 4, r.fence, 'policy', 'the receiver is ' || class);
    ELSIF r.state = 4 THEN
      outcome := 'outcome-unknown';
    ELSIF r.forget_at <= now AND r.key_time IS NOT NULL THEN
      outcome := 'expired';
    ELSE
      outcome := 'gone';
    END IF;
    changed := is_granted OR r.state <> stands.state;
  END IF;
  IF is_granted THEN
    outcome := 'granted';
    changed := true;
    r.state := 1;
    r.fingerprint := fingerprint;
    r.credential := NULL;
    r.evidence := NULL;
    r.attempt := least(r.attempt + 1, 4294967295);
    IF is_committing THEN
      r.first_commit_at := coalesce(r.first_commit_at, now);
    END IF;
    r.claim_id := claim_id;
    r.committing := is_committing;
    r.lease_until := onlyonce._plus(now, lease);
  END IF;
  IF changed THEN
    r.revision := greatest(coalesce(stands.revision, 0) + 1, now);
  END IF;
  IF is_granted THEN
    r.fence := r.revision;
    r.first_fence := coalesce(r.first_fence, r.revision);
  END IF;
END $$;

-- What a completion makes of a record in the transaction that it commits with; the latest claim
-- alone completes, and once. `r` is to be written if the outcome is done.
CREATE OR REPLACE FUNCTION onlyonce._complete(
  now numeric, retention numeric, skew numeric, stands onlyonce._record, fence numeric,
  status integer, content bytea, OUT outcome text, OUT r onlyonce._record
) LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF stands.fence < fence THEN
    outcome := 'invalid-fence';
    RETURN;
  ELSIF stands.state NOT IN (1, 4) OR stands.fence <> fence THEN
    outcome := 'fenced';
    RETURN;
  END IF;
  -- Neither state has anything to remember yet.
  r := onlyonce._settle(stands, now, 0, skew);
  IF r.state <> 1 THEN
    r := onlyonce._enter(r, now, 5, fence, 'holder', '');
  END IF;
  outcome := 'done';
  r.state := 3;
  r.claim_id := NULL;
  r.lease_until := NULL;
  r.committing := NULL;
  r.since := NULL;
  r.cause := NULL;
  r.only_fence := NULL;
  r.status := status;
  r.content := content;
  r.kept := content IS NOT NULL;
  r.answered_at := now;
  r.retain_until := onlyonce._plus(now, retention);
  r.sealed := false;
  r.revision := greatest(stands.revision + 1, now);
END $$;
