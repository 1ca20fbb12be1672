GROWN, MOVED = "as grown", "λ 1"
def clusters_title(number): return f"λ {number}"
