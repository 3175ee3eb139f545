stream_job.py
