-- Called in the caller's transaction: the key, the sender, the recipient, the message. The same
-- again changes nothing; another message under the same key and recipient is an error.
CREATE OR REPLACE PROCEDURE onlyonce_mail_send(
  the_key LONGTEXT CHARACTER SET utf8mb4, the_sender LONGTEXT CHARACTER SET utf8mb4,
  the_recipient LONGTEXT CHARACTER SET utf8mb4, the_message LONGBLOB
) MODIFIES SQL DATA SQL SECURITY DEFINER
BEGIN
  DECLARE of_key LONGBLOB DEFAULT CAST(the_key AS BINARY);
  DECLARE named VARCHAR(255) CHARACTER SET ascii COLLATE ascii_nopad_bin;
  DECLARE whom VARCHAR(320) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
  DECLARE is_same BOOLEAN;
  DECLARE number_before BIGINT UNSIGNED DEFAULT LAST_INSERT_ID();
  IF of_key IS NULL OR of_key NOT REGEXP '^[ -~]{1,255}\\z' OR of_key NOT REGEXP '[!-~]' THEN
    SIGNAL SQLSTATE '22023' SET MESSAGE_TEXT =
      'onlyonce: it did not happen: the key must be 1 to 255 bytes of printable ASCII';
  ELSEIF the_sender IS NULL OR the_recipient IS NULL OR the_message IS NULL
    OR LOCATE('@', the_sender) = 0 OR LOCATE('@', the_recipient) = 0 THEN
    SIGNAL SQLSTATE '22023' SET MESSAGE_TEXT =
      'onlyonce: it did not happen: a message needs a sender and a recipient, with an @, and a text';
  ELSEIF 320 < CHAR_LENGTH(the_recipient) THEN
    SIGNAL SQLSTATE '22023' SET MESSAGE_TEXT =
      'onlyonce: it did not happen: a recipient has at most 320 characters';
  END IF;
  SET named = the_key, whom = the_recipient;
  -- Whoever writes the same at this moment is waited for, and nobody else: what was found is read
  -- by its number, since a lock by the key is one on its neighbours too.
  INSERT INTO onlyonce_mail_outbox (`key`, sender, recipient, message, posted)
    VALUES (named, the_sender, whom, the_message, UNIX_TIMESTAMP() * 1000)
    ON DUPLICATE KEY UPDATE number = LAST_INSERT_ID(number);
  SELECT CAST(o.sender AS BINARY) = CAST(the_sender AS BINARY) AND o.message = the_message
    INTO is_same FROM onlyonce_mail_outbox o WHERE o.number = LAST_INSERT_ID() FOR UPDATE;
  -- The caller's own stays what it was.
  DO LAST_INSERT_ID(number_before);
  IF NOT is_same THEN
    SIGNAL SQLSTATE '23000' SET MYSQL_ERRNO = 1062, MESSAGE_TEXT =
      'onlyonce: it did not happen: another message to this recipient was written with this key';
  END IF;
END
