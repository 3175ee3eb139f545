-- Every version of one row, with the times between which it was valid. Put your table and key for my_table and id = 1.
SELECT *
FROM "${source}_history"."my_table_versions"
WHERE id = 1
ORDER BY valid_from
