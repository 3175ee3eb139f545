-- Every change of one row as the source sent it: c insert, u update, d delete, r read by a snapshot, t truncate.
SELECT *
FROM "${source}_history"."my_table"
WHERE id = 1 OR _op = 't'
ORDER BY _era, _lsn, _idx
