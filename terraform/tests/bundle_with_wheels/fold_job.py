fold_job.py
