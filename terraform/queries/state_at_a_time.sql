-- The rows of a table as they were at a time of the source, in UTC. Put your table for my_table and your time.
SELECT *
FROM "${source}_history"."my_table_versions"
WHERE valid_from <= TIMESTAMP '2026-01-01 00:00:00'
  AND (valid_to IS NULL OR valid_to > TIMESTAMP '2026-01-01 00:00:00')
