ROW (revision DECIMAL(30), fence DECIMAL(30), first_fence DECIMAL(30), attempt BIGINT,
  runs_authorised BIGINT, rerun BOOLEAN, print VARBINARY(33), credential VARBINARY(16),
  first_commit_at DECIMAL(30), key_time DECIMAL(30), evidence BLOB, h_count INT, h_bytes LONGBLOB,
  state INT, claim_id VARBINARY(16), lease_until DECIMAL(30), committing BOOLEAN,
  since DECIMAL(30), cause INT, only_fence DECIMAL(30), status INT, answered_at DECIMAL(30),
  retain_until DECIMAL(30), sealed BOOLEAN, kept BOOLEAN, content LONGBLOB, forget_at DECIMAL(30),
  digest VARBINARY(8))
