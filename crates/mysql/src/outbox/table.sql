-- Messages that are to be sent once the transaction that writes them is committed.

-- Keys and recipients are compared as they are written: `a ` is not `a`, and `A` is not `a`.
CREATE TABLE IF NOT EXISTS onlyonce_mail_outbox (
  number BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `key` VARCHAR(255) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL,
  sender TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  recipient VARCHAR(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  message LONGBLOB NOT NULL,
  -- By this server's clock, in milliseconds since 1970.
  posted BIGINT NOT NULL,
  state VARCHAR(7) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL DEFAULT 'waiting'
    CHECK (state IN ('waiting', 'taken', 'unknown', 'sent', 'refused')),
  -- Whose it is, and since when by that one's clock, in milliseconds since 1970.
  taken_by VARCHAR(64) CHARACTER SET ascii COLLATE ascii_nopad_bin,
  taken BIGINT,
  said TEXT CHARACTER SET utf8mb4,
  ended DATETIME(3),
  UNIQUE KEY (`key`, recipient),
  KEY (state, number),
  CHECK ((state = 'waiting') = (taken_by IS NULL AND taken IS NULL))
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;
