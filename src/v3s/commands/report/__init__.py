"""What a pre-training shows of itself while it runs: RUN/report.html."""
