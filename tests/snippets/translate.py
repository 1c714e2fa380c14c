from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("base")
model = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained("base"), "adapter").eval()
source = tokenizer("A good day.", return_tensors="pt")
output = model.generate(**source, max_new_tokens=64, do_sample=False, num_beams=1)
print(tokenizer.decode(output[0], skip_special_tokens=True))
