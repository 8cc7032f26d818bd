-- The store's own writes. A server keeps the plans of a function as long as a connection lives,
-- also where a pooler keeps no prepared statement, and to plan costs more than to carry out.

-- Swaps, all of one transaction and each of another key: the ids of those that took place.
-- `expected` is null where a row is made, and the content where one is deleted. The largest
-- revision that was written is noted in a row of `revisions`; who writes nothing waits for nothing.
--
-- The ids come in their order and are taken in it, each by the key: so two processes never wait
-- for each other.
CREATE OR REPLACE FUNCTION onlyonce._swap(
  ids bytea[], expected bigint[], revisions bigint[], states smallint[], due bigint[],
  contents bytea[], noted_in smallint
) RETURNS SETOF bytea LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  highest bigint := 0;
BEGIN
  FOR n IN 1 .. cardinality(ids) LOOP
    CONTINUE WHEN expected[n] IS NULL AND contents[n] IS NULL;
    IF expected[n] IS NULL THEN
      INSERT INTO onlyonce.records (id, revision, state, due_at, record)
      VALUES (ids[n], revisions[n], states[n], due[n], contents[n])
      ON CONFLICT (id) DO NOTHING;
    ELSIF contents[n] IS NULL THEN
      DELETE FROM onlyonce.records r WHERE r.id = ids[n] AND r.revision = expected[n];
    ELSE
      UPDATE onlyonce.records r
      SET revision = revisions[n], state = states[n], due_at = due[n], record = contents[n]
      WHERE r.id = ids[n] AND r.revision = expected[n];
    END IF;
    IF FOUND THEN
      highest := greatest(highest, revisions[n]);
      RETURN NEXT ids[n];
    END IF;
  END LOOP;
  IF 0 < highest THEN
    UPDATE onlyonce.revisions v SET revision = highest
    WHERE v.slot = noted_in AND v.revision < highest;
  END IF;
END $$;
