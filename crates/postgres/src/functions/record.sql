-- Functions for any language: a claim and its completion in the caller's own transaction.
--
-- This is the one other implementation of a part of the state machine, since a database cannot ask
-- the core. Every cell of the table that it can meet is compared with the core's
-- (tests/postgres/cells.rs), byte for byte. Numbers of 64 bits without a sign are `numeric` here.
-- Names that begin with _ are for this file alone.

DROP TYPE IF EXISTS onlyonce._record CASCADE;

-- A record, taken apart. What its state does not have is NULL.
CREATE TYPE onlyonce._record AS (
  revision numeric, fence numeric, first_fence numeric, attempt numeric, runs_authorised numeric,
  rerun boolean, fingerprint bytea, credential bytea, first_commit_at numeric, key_time numeric,
  evidence bytea,
  -- The history, one array for each part of its entries.
  h_at numeric[], h_event integer[], h_fence numeric[], h_by bytea[], h_why bytea[],
  -- 1 in flight, 2 released, 3 completed, 4 unknown, 5 tombstone.
  state integer,
  claim_id bytea, lease_until numeric, committing boolean,
  -- Since when it is released, or nobody knows.
  since numeric, cause integer, only_fence numeric,
  status integer, answered_at numeric, retain_until numeric, sealed boolean,
  kept boolean, content bytea, forget_at numeric, digest bytea
);

CREATE OR REPLACE FUNCTION onlyonce._damaged(id bytea, says text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'onlyonce: the record of key % cannot be read: %', encode(id, 'hex'), says
    USING ERRCODE = 'OO003', DETAIL = 'It did not happen in this transaction.',
      HINT = 'Do not send it again before somebody has looked at the record.';
END $$;

-- HMAC-SHA-256 (RFC 2104) under a key of 32 bytes over parts, each behind its length.
CREATE OR REPLACE FUNCTION onlyonce._mac(secret bytea, VARIADIC parts bytea[]) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  inner_pad bytea := decode(repeat('36', 64), 'hex');
  outer_pad bytea := decode(repeat('5c', 64), 'hex');
  said bytea := '';
  part bytea;
BEGIN
  FOR i IN 0..31 LOOP
    inner_pad := set_byte(inner_pad, i, get_byte(inner_pad, i) # get_byte(secret, i));
    outer_pad := set_byte(outer_pad, i, get_byte(outer_pad, i) # get_byte(secret, i));
  END LOOP;
  FOREACH part IN ARRAY parts LOOP
    said := said || int4send(octet_length(part)) || part;
  END LOOP;
  RETURN sha256(outer_pad || sha256(inner_pad || said));
END $$;

CREATE OR REPLACE FUNCTION onlyonce._byte(number integer) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$ SELECT set_byte('\x00'::bytea, 0, number) $$;

-- LEB128.
CREATE OR REPLACE FUNCTION onlyonce._varint(number numeric) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  rest bigint;
  written bytea := '';
BEGIN
  -- The lowest seven bits apart, so that what is left fits the sign.
  IF number < 128 THEN
    RETURN onlyonce._byte(number::integer);
  END IF;
  written := onlyonce._byte((number % 128)::integer | 128);
  rest := div(number, 128);
  WHILE 128 <= rest LOOP
    written := written || onlyonce._byte((rest & 127)::integer | 128);
    rest := rest >> 7;
  END LOOP;
  RETURN written || onlyonce._byte(rest::integer);
END $$;

-- A time, as its distance from the revision: wrapping, and with the sign in the lowest bit.
CREATE OR REPLACE FUNCTION onlyonce._time(base numeric, millis numeric) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  distance numeric := millis - base;
BEGIN
  IF 9223372036854775808 <= distance THEN
    distance := distance - 18446744073709551616;
  END IF;
  RETURN onlyonce._varint(CASE WHEN 0 <= distance THEN 2 * distance ELSE -2 * distance - 1 END);
END $$;

CREATE OR REPLACE FUNCTION onlyonce._bytes(said bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$ SELECT onlyonce._varint(octet_length(said)) || said $$;

-- Reads a number at an offset from zero, which moves behind it.
CREATE OR REPLACE FUNCTION onlyonce._take(said bytea, INOUT place integer, OUT number numeric)
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  low bigint := 0;
  shift integer := 0;
  byte integer;
BEGIN
  LOOP
    byte := get_byte(said, place);
    place := place + 1;
    IF shift = 63 THEN
      -- The tenth byte holds the highest bit, which is the sign's place.
      number := low + (byte & 1) * 9223372036854775808;
      RETURN;
    END IF;
    low := low | ((byte & 127)::bigint << shift);
    IF byte < 128 THEN
      number := low;
      RETURN;
    END IF;
    shift := shift + 7;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION onlyonce._take_time(
  base numeric, said bytea, INOUT place integer, OUT millis numeric
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  zigzag numeric;
BEGIN
  SELECT t.place, t.number INTO place, zigzag FROM onlyonce._take(said, place) t;
  millis := base + CASE WHEN zigzag % 2 = 0 THEN div(zigzag, 2) ELSE -div(zigzag, 2) - 1 END;
  millis := (millis + 18446744073709551616) % 18446744073709551616;
END $$;

-- CRC-32C (Castagnoli), its bytes from the lowest on.
CREATE OR REPLACE FUNCTION onlyonce._checksum(said bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  steps CONSTANT bigint[] := '{
    0,4067132163,3778769143,324072436,3348797215,904991772,648144872,3570033899,2329499855,
    2024987596,1809983544,2575936315,1296289744,3207089363,2893594407,1578318884,274646895,
    3795141740,4049975192,51262619,3619967088,632279923,922689671,3298075524,2592579488,
    1760304291,2075979607,2312596564,1562183871,2943781820,3156637768,1313733451,549293790,
    3537243613,3246849577,871202090,3878099393,357341890,102525238,4101499445,2858735121,
    1477399826,1264559846,3107202533,1845379342,2677391885,2361733625,2125378298,820201905,
    3263744690,3520608582,598981189,4151959214,85089709,373468761,3827903834,3124367742,
    1213305469,1526817161,2842354314,2107672161,2412447074,2627466902,1861252501,1098587580,
    3004210879,2688576843,1378610760,2262928035,1955203488,1742404180,2511436119,3416409459,
    969524848,714683780,3639785095,205050476,4266873199,3976438427,526918040,1361435347,
    2739821008,2954799652,1114974503,2529119692,1691668175,2005155131,2247081528,3690758684,
    697762079,986182379,3366744552,476452099,3993867776,4250756596,255256311,1640403810,
    2477592673,2164122517,1922457750,2791048317,1412925310,1197962378,3037525897,3944729517,
    427051182,170179418,4165941337,746937522,3740196785,3451792453,1070968646,1905808397,
    2213795598,2426610938,1657317369,3053634322,1147748369,1463399397,2773627110,4215344322,
    153784257,444234805,3893493558,1021025245,3467647198,3722505002,797665321,2197175160,
    1889384571,1674398607,2443626636,1164749927,3070701412,2757221520,1446797203,137323447,
    4198817972,3910406976,461344835,3484808360,1037989803,781091935,3705997148,2460548119,
    1623424788,1939049696,2180517859,1429367560,2807687179,3020495871,1180866812,410100952,
    3927582683,4182430767,186734380,3756733383,763408580,1053836080,3434856499,2722870694,
    1344288421,1131464017,2971354706,1708204729,2545590714,2229949006,1988219213,680717673,
    3673779818,3383336350,1002577565,4010310262,493091189,238226049,4233660802,2987750089,
    1082061258,1395524158,2705686845,1972364758,2279892693,2494862625,1725896226,952904198,
    3399985413,3656866545,731699698,4283874585,222117402,510512622,3959836397,3280807620,
    837199303,582374963,3504198960,68661723,4135334616,3844915500,390545967,1230274059,
    3141532936,2825850620,1510247935,2395924756,2091215383,1878366691,2644384480,3553878443,
    565732008,854102364,3229815391,340358836,3861050807,4117890627,119113024,1493875044,
    2875275879,3090270611,1247431312,2660249211,1828433272,2141937292,2378227087,3811616794,
    291187481,34330861,4032846830,615137029,3603020806,3314634738,939183345,1776939221,
    2609017814,2295496738,2058945313,2926798794,1545135305,1330124605,3173225534,4084100981,
    17165430,307568514,3762199681,888469610,3332340585,3587147933,665062302,2042050490,
    2346497209,2559330125,1793573966,3190661285,1279665062,1595330642,2910671697}';
  -- A copy: what lies apart in the table would be fetched anew for each byte.
  flat bytea := said || ''::bytea;
  sum bigint := 4294967295;
BEGIN
  FOR i IN 0..octet_length(flat) - 1 LOOP
    sum := steps[((sum # get_byte(flat, i)) & 255) + 1] # (sum >> 8);
  END LOOP;
  sum := sum # 4294967295;
  RETURN onlyonce._byte((sum & 255)::integer) || onlyonce._byte((sum >> 8 & 255)::integer)
    || onlyonce._byte((sum >> 16 & 255)::integer) || onlyonce._byte((sum >> 24)::integer);
END $$;

-- The record in a row. The formats are those of docs/record-format.md, 1 to 3.
CREATE OR REPLACE FUNCTION onlyonce._read(id bytea, revision bigint, stored bytea)
RETURNS onlyonce._record LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  r onlyonce._record;
  said bytea;
  place integer := 19;
  flags integer;
  details integer;
  size numeric;
  count numeric;
BEGIN
  IF 1114112 < octet_length(stored) THEN
    -- Only an answer is so large. To check it here would take seconds.
    RAISE EXCEPTION 'onlyonce: the answer of key % is above 1 MiB, which is not read here',
      encode(id, 'hex')
      USING ERRCODE = '54000',
        DETAIL = 'The key was answered before, perhaps for another request. Nothing happened now.',
        HINT = 'Ask for the answer by the Rust API or the service.';
  END IF;
  said := substring(stored FROM 5);
  IF octet_length(stored) < 5 OR substring(stored FOR 4) <> onlyonce._checksum(said) THEN
    PERFORM onlyonce._damaged(id, 'its checksum is wrong');
  ELSIF get_byte(said, 0) >> 4 NOT BETWEEN 1 AND 3 THEN
    RAISE EXCEPTION 'onlyonce: a newer onlyonce has written the record of key %', encode(id, 'hex')
      USING ERRCODE = '0A000', DETAIL = 'It did not happen in this transaction.',
        HINT = 'Install the functions of that onlyonce: onlyonce store functions';
  ELSIF substring(said FROM 4 FOR 16) <> id THEN
    PERFORM onlyonce._damaged(id, 'it is that of another row');
  END IF;
  r.state := get_byte(said, 0) & 15;
  flags := get_byte(said, 1);
  details := get_byte(said, 2);
  SELECT t.place, t.number INTO place, r.revision FROM onlyonce._take(said, place) t;
  IF r.revision <> revision THEN
    PERFORM onlyonce._damaged(id, 'it is that of another row');
  END IF;
  SELECT t.place, r.revision - t.number INTO place, r.fence FROM onlyonce._take(said, place) t;
  r.first_fence := r.fence;
  r.attempt := 1;
  r.runs_authorised := 0;
  r.rerun := flags & 64 <> 0;
  IF flags & 128 <> 0 THEN
    SELECT t.place, r.fence - t.number INTO place, r.first_fence FROM onlyonce._take(said, place) t;
    SELECT t.place, t.number INTO place, r.attempt FROM onlyonce._take(said, place) t;
    SELECT t.place, t.number INTO place, r.runs_authorised FROM onlyonce._take(said, place) t;
  END IF;
  IF flags & 1 <> 0 THEN
    r.fingerprint := substring(said FROM place + 1 FOR 33);
    place := place + 33;
  END IF;
  IF flags & 2 <> 0 THEN
    r.credential := substring(said FROM place + 1 FOR 16);
    place := place + 16;
  END IF;
  IF flags & 4 <> 0 THEN
    SELECT t.place, t.millis INTO place, r.first_commit_at
    FROM onlyonce._take_time(r.revision, said, place) t;
  END IF;
  IF flags & 8 <> 0 THEN
    SELECT t.place, t.millis INTO place, r.key_time
    FROM onlyonce._take_time(r.revision, said, place) t;
  END IF;
  IF flags & 16 <> 0 THEN
    SELECT t.place, t.number INTO place, size FROM onlyonce._take(said, place) t;
    r.evidence := substring(said FROM place + 1 FOR size::integer);
    place := place + size::integer;
  END IF;
  IF flags & 32 <> 0 THEN
    SELECT t.place, t.number INTO place, count FROM onlyonce._take(said, place) t;
    FOR i IN 1..count::integer LOOP
      SELECT t.place, r.h_at || t.millis INTO place, r.h_at
      FROM onlyonce._take_time(r.revision, said, place) t;
      r.h_event := r.h_event || get_byte(said, place);
      SELECT t.place, r.h_fence || t.number INTO place, r.h_fence
      FROM onlyonce._take(said, place + 1) t;
      SELECT t.place, t.number INTO place, size FROM onlyonce._take(said, place) t;
      r.h_by := r.h_by || substring(said FROM place + 1 FOR size::integer);
      SELECT t.place, t.number INTO place, size
      FROM onlyonce._take(said, place + size::integer) t;
      r.h_why := r.h_why || substring(said FROM place + 1 FOR size::integer);
      place := place + size::integer;
    END LOOP;
  END IF;
  RETURN onlyonce._read_state(r, said, place, details);
END $$;

CREATE OR REPLACE FUNCTION onlyonce._read_state(
  r onlyonce._record, said bytea, place integer, details integer
) RETURNS onlyonce._record LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  base CONSTANT numeric := r.revision;
BEGIN
  r.sealed := details & 1 <> 0;
  r.kept := details & 2 <> 0;
  IF r.state = 1 THEN
    r.claim_id := substring(said FROM place + 1 FOR 16);
    r.committing := details & 4 <> 0;
    -- Who holds it is of no use here.
    SELECT t.place INTO place FROM onlyonce._take(said, place + 48) t;
    IF details & 32 <> 0 THEN
      place := place + 4;
    END IF;
    SELECT t.place, t.millis INTO place, r.lease_until
    FROM onlyonce._take_time(base, said, place) t;
  ELSIF r.state IN (3, 5) THEN
    r.status := get_byte(said, place) | (get_byte(said, place + 1) << 8);
    SELECT t.place, t.millis INTO place, r.answered_at
    FROM onlyonce._take_time(base, said, place + 2) t;
  END IF;
  IF r.state = 2 THEN
    SELECT t.millis INTO r.since FROM onlyonce._take_time(base, said, place) t;
  ELSIF r.state = 3 THEN
    SELECT t.place, t.millis INTO place, r.retain_until
    FROM onlyonce._take_time(base, said, place) t;
    IF r.kept THEN
      r.content := substring(said FROM place + 1);
    END IF;
  ELSIF r.state = 5 THEN
    SELECT t.place, t.millis INTO place, r.forget_at
    FROM onlyonce._take_time(base, said, place) t;
    r.digest := substring(said FROM place + 1 FOR 8);
  ELSIF details & 8 <> 0 THEN
    SELECT t.place, t.millis INTO place, r.since FROM onlyonce._take_time(base, said, place) t;
    r.cause := get_byte(said, place);
    IF details & 16 <> 0 THEN
      SELECT t.number INTO r.only_fence FROM onlyonce._take(said, place + 1) t;
    END IF;
  END IF;
  RETURN r;
END $$;

-- What a row holds of a record: its checksum and its bytes.
CREATE OR REPLACE FUNCTION onlyonce._write(id bytea, r onlyonce._record) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  base CONSTANT numeric := r.revision;
  is_first boolean := r.attempt = 1 AND r.runs_authorised = 0 AND r.first_fence = r.fence;
  version integer := CASE WHEN 10 = ANY (r.h_event) THEN 3 WHEN 9 = ANY (r.h_event) THEN 2 ELSE 1 END;
  flags integer := (r.fingerprint IS NOT NULL)::integer
    | ((r.credential IS NOT NULL)::integer << 1) | ((r.first_commit_at IS NOT NULL)::integer << 2)
    | ((r.key_time IS NOT NULL)::integer << 3) | ((r.evidence IS NOT NULL)::integer << 4)
    | ((r.h_at IS NOT NULL)::integer << 5) | (r.rerun::integer << 6)
    | ((NOT is_first)::integer << 7);
  details integer := 0;
  said bytea;
BEGIN
  IF r.state IN (1, 4) THEN
    details := ((r.state = 1 AND r.committing)::integer << 2)
      | ((r.since IS NOT NULL)::integer << 3) | ((r.only_fence IS NOT NULL)::integer << 4);
  ELSIF r.state IN (3, 5) THEN
    details := r.sealed::integer | ((r.state = 3 AND r.kept)::integer << 1);
  END IF;
  said := onlyonce._byte(version << 4 | r.state) || onlyonce._byte(flags)
    || onlyonce._byte(details) || id
    || onlyonce._varint(base) || onlyonce._varint(base - r.fence);
  IF NOT is_first THEN
    said := said || onlyonce._varint(r.fence - r.first_fence) || onlyonce._varint(r.attempt)
      || onlyonce._varint(r.runs_authorised);
  END IF;
  said := said || coalesce(r.fingerprint, '') || coalesce(r.credential, '')
    || coalesce(onlyonce._time(base, r.first_commit_at), '')
    || coalesce(onlyonce._time(base, r.key_time), '')
    || coalesce(onlyonce._bytes(r.evidence), '');
  IF r.h_at IS NOT NULL THEN
    said := said || onlyonce._varint(cardinality(r.h_at));
    FOR i IN 1..cardinality(r.h_at) LOOP
      said := said || onlyonce._time(base, r.h_at[i]) || onlyonce._byte(r.h_event[i])
        || onlyonce._varint(r.h_fence[i]) || onlyonce._bytes(r.h_by[i])
        || onlyonce._bytes(r.h_why[i]);
    END LOOP;
  END IF;
  IF r.state = 1 THEN
    -- Nobody in particular holds it.
    said := said || r.claim_id || decode(repeat('00', 33), 'hex')
      || onlyonce._time(base, r.lease_until);
  ELSIF r.state = 2 THEN
    said := said || onlyonce._time(base, r.since);
  ELSIF r.state IN (3, 5) THEN
    said := said || onlyonce._byte(r.status & 255) || onlyonce._byte(r.status >> 8)
      || onlyonce._time(base, r.answered_at)
      || CASE r.state WHEN 3 THEN onlyonce._time(base, r.retain_until) || coalesce(r.content, '')
           ELSE onlyonce._time(base, r.forget_at) || r.digest END;
  END IF;
  IF r.state IN (1, 4) AND r.since IS NOT NULL THEN
    said := said || onlyonce._time(base, r.since) || onlyonce._byte(r.cause)
      || coalesce(onlyonce._varint(r.only_fence), '');
  END IF;
  RETURN onlyonce._checksum(said) || said;
END $$;
