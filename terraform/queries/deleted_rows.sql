-- What was deleted last, and when. Put your table for my_table.
SELECT *
FROM "${source}_history"."my_table"
WHERE _op = 'd'
ORDER BY _era DESC, _lsn DESC, _idx DESC
LIMIT 100
